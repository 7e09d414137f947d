"""Writes the parts of a timeline that come before and around the training step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vramplan.ledger import Component, Phase
from vramplan.predict.quantization import QuantizedPiece
from vramplan.timeline import Alloc, EmptyCache, Enter, Free, Part, Repeat


class Piece(NamedTuple):
    """One tensor: what it is for, its name, its raw bytes."""

    component: Component
    label: str
    bytes: int


class Writer:
    """Collects parts. Its block numbers are negative, so that they never meet those of the step."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._last = 0

    def enter(self, phase: Phase) -> None:
        """From here on the high-water mark belongs to `phase`."""
        self.parts.append(Enter(phase))

    def alloc(self, component: Component, label: str, size: int) -> int:
        """The number of a new block."""
        self._last -= 1
        self.parts.append(Alloc(self._last, size, component, label))
        return self._last

    def hold(self, piece: Piece | QuantizedPiece) -> int:
        """The number of a new block for `piece`."""
        return self.alloc(piece.component, piece.label, piece.bytes)

    def temporary(self, label: str, size: int) -> int:
        """The number of a new block of the workspace."""
        return self.alloc(Component.WORKSPACE, label, size)

    def free(self, *blocks: int) -> None:
        """Give blocks back."""
        self.parts.extend(map(Free, blocks))

    def empty_cache(self) -> None:
        """`torch.cuda.empty_cache()`."""
        self.parts.append(EmptyCache())

    @contextmanager
    def repeat(self, times: int) -> Iterator[None]:
        """What is written inside happens `times` times."""
        outer, self.parts = self.parts, []
        yield
        body = tuple(self.parts)
        self.parts = outer
        if body:
            self.parts.append(Repeat(body, times))
