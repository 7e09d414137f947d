"""What a library calls, replaced for a while."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock


class Replacement(NamedTuple):
    """A name of a module or class, and what it means instead."""

    owner: Any
    name: str
    value: Any


@contextmanager
def replacing(replacements: Iterable[Replacement], *, create: bool = False) -> Iterator[None]:
    """Inside, each name means what replaces it; `create` allows for names that are not there."""
    with ExitStack() as stack:
        for owner, name, value in replacements:
            stack.enter_context(mock.patch.object(owner, name, value, create=create))
        yield
