"""The command line for the next question, with what was typed for this one."""

import shlex
from argparse import Namespace
from collections.abc import Iterator

from vramplan.commands.flags import FLAGS
from vramplan.units import GIB, MIB

_DATA_OPTIONS = ("data", "lengths", "tokenizer", "field", "sampler", "packing", "pad_to_multiple_of")


def plan_command(args: Namespace) -> str:
    """`vramplan plan` of the target that `predict` was given, every flag that both know kept."""
    return shlex.join(["vramplan", "plan", args.target, *_scenario_words(args), *_other_words(args)])


def _scenario_words(args: Namespace) -> Iterator[str]:
    for flag in FLAGS:
        if (value := getattr(args, flag.dest)) is not None:
            yield from flag.typed(value)
    for assignment in args.assignments:
        yield from ("--set", assignment)


def _other_words(args: Namespace) -> Iterator[str]:
    for option in ("budget", "reserve"):
        if size := getattr(args, option):
            yield from (f"--{option}", _size(size))
    for option in _DATA_OPTIONS:
        if value := getattr(args, option):
            yield from (f"--{option.replace('_', '-')}", str(value))
    if args.skip_bad:
        yield "--skip-bad"


def _size(size: int) -> str:
    """An amount of memory as the flags read it."""
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB")):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
