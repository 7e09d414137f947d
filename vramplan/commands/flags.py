"""The flags that several commands share: one per scenario key, and how they become overrides of a scenario file."""

from argparse import Action, ArgumentParser, Namespace, _ActionsContainer
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from vramplan.errors import UsageError
from vramplan.files import user_path


class Flag(NamedTuple):
    """A flag that sets one key of the scenario."""

    option: str
    key: str
    """Dotted key of the scenario file."""
    metavar: str
    """Empty for a switch, which also has its `--no-` form."""
    help: str

    @property
    def dest(self) -> str:
        """Where argparse puts the value."""
        return "key:" + self.key

    def typed(self, value: str | bool) -> tuple[str, ...]:
        """The words of a command line that give it this value."""
        if isinstance(value, bool):
            return (self.option if value else self.option.replace("--", "--no-", 1),)
        return self.option, value


FLAGS = (
    Flag("--name", "name", "NAME", "name of the scenario in records and tables"),
    Flag("--method", "method", "M", "what the run does: qlora, lora, full, inference or merge"),
    Flag("--batch", "batch", "N", "micro-batch per device, in samples"),
    Flag("--seq", "seq", "N", "tokens per sequence"),
    Flag("--padding", "padding", "", "batches have padded samples, or not"),
    Flag("--grad-accum", "grad_accum", "N", "micro-batches per optimizer step"),
    Flag("--rank", "lora.rank", "N", "rank of the adapters"),
    Flag("--targets", "lora.targets", "A,B", "modules that get adapters, or all-linear"),
    Flag("--dropout", "lora.dropout", "P", "adapter dropout"),
    Flag("--adapter-dtype", "lora.dtype", "T", "element type of the adapters"),
    Flag("--dora", "lora.dora", "", "split adapted matrices into magnitude and direction (DoRA), or not"),
    Flag("--modules-to-save", "lora.modules_to_save", "A,B", "modules trained whole, such as embed_tokens,lm_head"),
    Flag("--modules-dtype", "lora.modules_dtype", "T", "element type that the trainer casts these modules to"),
    Flag("--quant", "quant.type", "T", "how the base's linear layers are stored: nf4, fp4, int8 or none"),
    Flag("--double-quant", "quant.double", "", "quantise the block constants too, or not"),
    Flag("--block-size", "quant.block_size", "N", "weights that share a constant"),
    Flag("--storage", "quant.storage", "T", "element type of the packed weights"),
    Flag("--optimizer", "optimizer", "O", "optimizer, such as adamw_torch, paged_adamw_8bit or sgd"),
    Flag("--dtype", "dtype", "T", "base weights as loaded"),
    Flag("--compute-dtype", "compute_dtype", "T", "element type of the matrix products"),
    Flag("--load", "load", "L", "where the base weights come from: checkpoint or random"),
    Flag("--checkpointing", "checkpointing", "C", "gradient checkpointing: true, reentrant or false"),
    Flag("--attention", "attention", "A", "what computes attention: sdpa, sdpa:flash, eager, flash_attention_2, ..."),
    Flag("--stack", "stack", "S", "training loop: hf-trainer, trl, trl-dpo or script"),
    Flag("--upcast", "stack.upcast", "U", "16-bit parameters cast to fp32: all, norms, rest or none"),
    Flag("--autocast", "stack.autocast", "T", "mixed precision: false, true, bfloat16 or float16"),
    Flag("--outputs", "stack.outputs", "O", "how long model outputs are held: freed, held or held-next"),
    Flag("--loss", "stack.loss", "L", "what computes the loss: torch, liger, chunked or tiled"),
    Flag("--kernels", "stack.kernels", "K", "operations of the layers: torch, liger, or some of rope,rms_norm,mlp"),
    Flag("--clip", "stack.clip", "", "clip gradients by their norm, or not"),
    Flag("--gpu", "gpu", "NAME", "card, see `vramplan list gpus`"),
    Flag("--torch", "torch", "RELEASE", "release of PyTorch that runs it, such as 2.13"),
    Flag("--expandable-segments", "expandable_segments", "", "PYTORCH_ALLOC_CONF=expandable_segments:True, or not"),
    Flag("--new-tokens", "new_tokens", "N", "tokens that inference generates"),
    Flag("--eval-batch", "eval.batch", "N", "evaluate inside training, with this batch per device"),
    Flag("--eval-accumulate", "eval.accumulate", "N", "evaluation steps whose logits are gathered; 0: the loss alone"),
    Flag("--merge-dequantize", "merge.dequantize", "", "make a quantised base 16-bit before merging, or not"),
    Flag("--merge-safe", "merge.safe", "", "merge into a copy that is looked through for NaN, or not"),
    Flag("--max-shard-size", "merge.max_shard_size", "SIZE", "largest file that a merge saves, such as 5GB"),
)
DEVICES = ("cuda", "cpu")
#: Keys whose value is a word as it stands, whatever YAML would read in it.
_WORDS = frozenset({"name", "gpu", "torch", "optimizer", "merge.max_shard_size"})


def add_scenario_flags(parser: ArgumentParser) -> None:
    """One flag per scenario key, and `--set` for the rest."""
    from argparse import BooleanOptionalAction

    group = parser.add_argument_group("scenario", "each flag replaces the key of the same name")
    for flag in FLAGS:
        if flag.metavar:
            group.add_argument(flag.option, dest=flag.dest, metavar=flag.metavar, help=flag.help)
        else:
            group.add_argument(flag.option, dest=flag.dest, action=BooleanOptionalAction, help=flag.help)
    group.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any key, such as lora.rank=8",
    )


def overrides(args: Namespace) -> dict[str, Any]:
    """The dotted keys that the flags and `--set` give values; a UsageError where one gets two."""
    given = [(flag, raw) for flag in FLAGS if (raw := getattr(args, flag.dest)) is not None]
    for flag, raw in given:
        if raw == "":  # a script's variable that is not set
            raise UsageError(f"{flag.option} is empty", hint="give a value, or leave the flag out")
    found = {flag.key: _value(flag.key, raw) for flag, raw in given}
    said = {flag.key: " ".join(flag.typed(raw)) for flag, raw in given}
    for text in args.assignments:
        key, value = _assignment(text)
        if key in found and found[key] != value:
            raise UsageError(f"{key} is given two values: {said[key]} and --set {text}", hint="leave out one of them")
        found[key], said[key] = value, f"--set {text}"
    return found


def _value(key: str, raw: str | bool) -> Any:
    if isinstance(raw, bool) or key in _WORDS:
        return raw
    if key in ("lora.targets", "stack.kernels") and "," not in raw:  # a word for several, or one name
        return raw
    if key in ("lora.targets", "lora.modules_to_save", "stack.kernels"):
        return [name.strip() for name in raw.split(",")]
    return yaml_value(raw, key)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise UsageError(
            f"--set: '{text}' is not key=value", hint="such as --set lora.rank=8 or --set stack.loss=liger"
        )
    return key.strip(), raw.strip() if key.strip() in _WORDS else yaml_value(raw, key.strip())


def yaml_value(text: str, key: str) -> Any:
    """`text` as YAML reads it: numbers, true and false, [lists]; otherwise the words themselves."""
    if text.isascii() and text.isdecimal() and len(text) < 20 and not text.startswith("0"):
        return int(text)  # by far the most frequent, and YAML takes a while to import
    import yaml

    from vramplan.yaml_file import parse_yaml

    try:
        return parse_yaml(text)
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{key}: '{text}' is not a YAML value: {reason}", hint="quote it, or check brackets"
        ) from error


def add_path(parser: _ActionsContainer, *names: str, **settings: Any) -> None:
    """Add an argument whose value is a file or directory, or may be: shells complete it to one."""
    vars(parser.add_argument(*names, **settings))["takes_path"] = True


def writable(option: str) -> Any:
    """An argparse `type` that takes a file which can be written: known before the work begins."""

    def check(text: str) -> Path:
        from vramplan.report.report_file import check_place

        path = user_path(text)
        check_place(path, option=option)
        return path

    return check


def takes_path(argument: Action) -> bool:
    """Whether `add_path` added it."""
    return "takes_path" in vars(argument)


def add_choice(parser: _ActionsContainer, name: str, words: Collection[str], **settings: Any) -> None:
    """Add an argument that takes one of `words`; another one is refused with the nearest."""
    from vramplan.errors import unknown

    def check(word: str) -> str:
        if word not in words:
            raise unknown(name, word, words)
        return word

    parser.add_argument(name, type=check, choices=words, **settings)


def count(option: str) -> Any:
    """An argparse `type` that takes an integer from 1 to a million."""

    def check(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text[:12]) <= 1_000_000:
            raise UsageError(f"{option}: '{text}' is not a count", hint="give an integer from 1 to 1000000")
        return int(text)

    return check


def size(option: str, *, least: int = 0) -> Any:
    """An argparse `type` that takes an amount of memory such as `24GiB`, of at least `least` bytes."""
    from functools import partial

    from vramplan.units import read_size

    return partial(read_size, key=option, least=least)


def add_json(parser: _ActionsContainer) -> None:
    """`--json`: the public JSON object instead of text."""
    parser.add_argument("--json", action="store_true", help="print the JSON object")


def add_device(parser: ArgumentParser, default: str | None, purpose: str) -> None:
    """`--device cuda|cpu`."""
    add_choice(parser, "--device", DEVICES, metavar="DEVICE", default=default, help=purpose)


ENGINES = ("analytic", "trace")


def add_engine(parser: ArgumentParser, purpose: str) -> None:
    """`--engine analytic|trace`."""
    add_choice(parser, "--engine", ENGINES, metavar="ENGINE", default="analytic", help=purpose)


def page() -> Any:
    """The page that stdout is: the terminal's width and colours, or a pipe's absence of both."""
    import os
    import shutil
    import sys

    from vramplan.report.layout import Page

    if sys.stdout is None or not sys.stdout.isatty():
        return Page()
    width = shutil.get_terminal_size().columns
    return Page(width, color=not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def json_text(body: object) -> str:
    """JSON as every command prints it."""
    import json

    return json.dumps(body, indent=2, ensure_ascii=False)


def closed_lists() -> dict[str, list[str]]:
    """The words that a scenario flag takes, by its dest. For shell completion: it imports what flags avoid."""
    from vramplan import scenario as floor
    from vramplan.catalog.gpus import gpu_names
    from vramplan.optimizers import OPTIMIZERS
    from vramplan.stacks import STACKS, LossKernel, Outputs, Upcast

    words: dict[str, Iterable[str]] = {
        "method": floor.Method,
        "quant.type": floor.QuantType,
        "optimizer": OPTIMIZERS,
        "dtype": floor.DType,
        "compute_dtype": floor.DType,
        "lora.dtype": floor.DType,
        "lora.modules_dtype": floor.DType,
        "load": floor.Load,
        "checkpointing": floor.Checkpointing,
        "attention": floor.ATTENTION,
        "stack": STACKS,
        "stack.upcast": Upcast,
        "stack.autocast": ("false", "true", "bfloat16", "float16"),
        "stack.outputs": Outputs,
        "stack.loss": LossKernel,
        "gpu": gpu_names(),
    }
    return {flag.dest: [str(word) for word in words[flag.key]] for flag in FLAGS if flag.key in words}
