"""The commands, one module each: a module here with a `COMMAND` of its own name is a command, and no list names it.

A command's module imports what it works with inside its functions, so that building the parser stays instant.
"""

import pkgutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.record import Prediction


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command prints on stdout, and its exit code."""

    text: str
    code: int = 0
    predictions: tuple["Prediction", ...] = ()
    """What the text says, for who asks `predict` from within."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the command line."""

    name: str
    order: int
    """Place in the list that `--help` prints."""
    summary: str
    """One line, lower case, no full stop."""
    examples: str
    configure: Callable[[ArgumentParser], None]
    """Adds the command's arguments to its parser."""
    run: Callable[[Namespace], Answer]


@cache
def all_commands() -> tuple[Command, ...]:
    """Every command, in the order of `--help`."""
    found = (_load(module.name) for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(filter(None, found), key=lambda command: command.order))


def commands_for(word: str) -> tuple[Command, ...]:
    """The command called `word` alone, so that nothing else is imported for it; every command when there is none."""
    name = word.replace("-", "_")
    known = any(module.name == name for module in pkgutil.iter_modules(__path__))
    command = _load(name) if known else None
    return all_commands() if command is None else (command,)


def _load(name: str) -> Command | None:
    """The command in the module of that name; None for a module that only helps."""
    command: Command | None = getattr(import_module(f"{__name__}.{name}"), "COMMAND", None)
    return command
