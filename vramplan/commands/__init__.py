"""The commands, one module each: a module here with a `COMMAND` is a command, nothing else needs to know about it.

A command's module imports what it works with inside its functions, so that building the parser stays instant.
"""

import pkgutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command prints on stdout, and its exit code."""

    text: str
    code: int = 0


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
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    found: list[Command] = [module.COMMAND for module in modules if hasattr(module, "COMMAND")]
    return tuple(sorted(found, key=lambda command: command.order))
