"""Sets of words that a model's own code goes through, in the order of their letters.

Python orders them anew in every process (PYTHONHASHSEED), and with them what the code makes for each kind of layer.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

from torch import nn


class _Sorted(set[Any]):
    """A set that is gone through in the order of its words."""

    def __iter__(self) -> Iterator[Any]:
        """Its members."""
        members = [*super().__iter__()]
        return iter(sorted(members) if all(isinstance(member, str) for member in members) else members)


def sort_kept_sets(model: nn.Module) -> None:
    """Sort the sets that the model's modules keep."""
    for module in model.modules():
        for name, value in vars(module).items():
            if type(value) is set and not name.startswith("_"):
                setattr(module, name, _Sorted(value))


@contextmanager
def sorted_sets(files: Iterable[ModuleType]) -> Iterator[None]:
    """While it lasts, sets that these files make are sorted."""
    with ExitStack() as patches:
        for file in files:
            patches.enter_context(mock.patch.object(file, "set", _Sorted, create=True))
        yield
