"""`vramplan list`: the names that the other commands take."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, json_text, one_of
from vramplan.errors import UsageError

EXAMPLES = """\
  vramplan list models llama
  vramplan list gpus
  vramplan list optimizers 8bit
  vramplan list scenarios --json"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    kinds = tuple(KINDS)
    parser.add_argument("kind", metavar="|".join(kinds), type=one_of("kind", kinds), choices=kinds)
    parser.add_argument("word", metavar="WORD", nargs="?", default="", help="only names that contain this")
    add_json(parser)


def run(args: Namespace) -> Answer:
    """The names and the facts that tell them apart."""
    head, *found = KINDS[args.kind]()
    found = [row for row in found if args.word.lower() in row[0].lower()]
    if not found:
        raise UsageError(
            f"no {args.kind} with '{args.word}' in the name", hint=f"`vramplan list {args.kind}` shows all"
        )
    if args.json:
        return Answer(json_text([dict(zip(head, row, strict=True)) for row in found]))
    from vramplan.report.layout import table

    return Answer("\n".join(table([head, *found], left=(0, *range(2, len(head))))))


def _models() -> Iterator[list[str]]:
    from vramplan.architecture import read_architecture
    from vramplan.catalog.models import catalog_config, catalog_names

    yield ["name", "parameters", "family"]
    for name in catalog_names():
        config = catalog_config(name)
        yield [name, f"{read_architecture(config, name=name).numel:,}", str(config["model_type"])]


def _stacks() -> Iterator[list[str]]:
    from vramplan.stacks import STACKS

    yield ["name", "upcast", "autocast", "outputs", "loss", "clip"]
    for name, stack in STACKS.items():
        words = [str(word).lower() for word in (stack.upcast, stack.autocast, stack.outputs, stack.loss, stack.clip)]
        yield [name, *words]


def _optimizers() -> Iterator[list[str]]:
    """What each keeps for a matrix large enough to be kept in 8 bits, and to be paged."""
    from vramplan.optimizers import OPTIMIZERS
    from vramplan.predict.adapters import Trainable
    from vramplan.predict.optimizer import FP32, states

    yield ["name", "state bytes per fp32 parameter", "where"]
    large = Trainable("weight", (4096, 4096), FP32, times=1)
    for name, kind in OPTIMIZERS.items():
        kept = states(name, large, "cuda", trainer=True)
        yield [name, f"{sum(state.bytes for state in kept) / large.numel:.2f}", "paged" if kind.paged else "card"]


def _scenarios() -> Iterator[list[str]]:
    from vramplan.targets import scenario_names
    from vramplan.yaml_file import read_yaml

    yield ["name", "model", "file"]
    for name, path in scenario_names().items():
        try:
            model = read_yaml(path).get("model", "")
        except UsageError:  # somebody else's file: the others are listed all the same
            model = "(no scenario)"
        yield [name, model if isinstance(model, str) else "(inline)", str(path)]


def _gpus() -> Iterator[list[str]]:
    from vramplan.catalog.gpus import gpu, gpu_names

    yield ["name", "GiB", "compute capability"]
    for name in gpu_names():
        card = gpu(name)
        yield [name, f"{card.capacity / 2**30:.2f}", ".".join(map(str, card.capability))]


KINDS: Mapping[str, Callable[[], Iterator[list[str]]]] = {
    "models": _models,
    "stacks": _stacks,
    "optimizers": _optimizers,
    "scenarios": _scenarios,
    "gpus": _gpus,
}

COMMAND = Command(
    name="list",
    order=60,
    summary="list the models, stacks, optimizers, scenarios and GPUs that are known by name",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
