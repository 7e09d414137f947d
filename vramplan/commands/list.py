"""`vramplan list`: the names that the other commands take."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_choice, add_json, json_text
from vramplan.errors import UsageError

Row = dict[str, Any]
"""A thing's name, and facts under the names that they have in the table and in the JSON."""

EXAMPLES = """\
  vramplan list models llama
  vramplan list gpus
  vramplan list optimizers 8bit
  vramplan list scenarios --json"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_choice(parser, "kind", tuple(KINDS), metavar="|".join(KINDS))
    parser.add_argument("word", metavar="WORD", nargs="?", default="", help="only names that contain this")
    add_json(parser)


def run(args: Namespace) -> Answer:
    """The names and the facts that tell them apart."""
    found = [row for row in KINDS[args.kind]() if args.word.lower() in row["name"].lower()]
    if not found:
        raise UsageError(
            f"no {args.kind} with '{args.word}' in the name", hint=f"`vramplan list {args.kind}` shows all"
        )
    if args.json:
        return Answer(json_text(found))
    from vramplan.report.layout import table

    head = [key for key in found[0] if key != "bytes"]  # which stand in GiB beside it
    rows = [[_shown(row[key]) for key in head] for row in found]
    return Answer("\n".join(table([head, *rows], left=(0, *range(2, len(head))))))


def _shown(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}" if isinstance(value, float) else str(value)


def _models() -> Iterator[Row]:
    from vramplan.architecture import read_architecture
    from vramplan.catalog.models import catalog_config, catalog_names

    for name in catalog_names():
        config = catalog_config(name)
        parameters = read_architecture(config, name=name).numel
        yield {"name": name, "parameters": parameters, "family": config["model_type"]}


def _stacks() -> Iterator[Row]:
    from vramplan.stacks import STACKS

    for name, stack in STACKS.items():
        yield {"name": name} | {key: getattr(stack, key) for key in ("upcast", "autocast", "outputs", "loss", "clip")}


def _optimizers() -> Iterator[Row]:
    """What each keeps for a matrix large enough to be kept in 8 bits, and to be paged."""
    from vramplan.optimizers import OPTIMIZERS
    from vramplan.predict.adapters import Trainable
    from vramplan.predict.optimizer import states

    large = Trainable("weight", (4096, 4096), "float32", times=1)
    for name, kind in OPTIMIZERS.items():
        kept = sum(state.bytes for state in states(name, large, "cuda", trainer=True)) / large.numel
        yield {"name": name, "state bytes per fp32 parameter": kept, "where": "paged" if kind.paged else "card"}


def _scenarios() -> Iterator[Row]:
    from vramplan.targets import scenario_names
    from vramplan.yaml_file import read_yaml

    for name, path in scenario_names().items():
        try:
            model = read_yaml(path).get("model", "")
        except UsageError:  # somebody else's file: the others are listed all the same
            model = "(no scenario)"
        yield {"name": name, "model": model if isinstance(model, str) else "(inline)", "file": str(path)}


def _gpus() -> Iterator[Row]:
    from vramplan.catalog.gpus import gpu, gpu_names
    from vramplan.units import GIB

    for name in gpu_names():
        card = gpu(name)
        capability = card.compute_capability
        yield {"name": name, "GiB": card.capacity / GIB, "bytes": card.capacity, "compute capability": capability}


KINDS: Mapping[str, Callable[[], Iterator[Row]]] = {
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
