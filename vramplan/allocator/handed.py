"""Finds memory that one round of a repeat hands to the next, as a layer hands its output to the layer behind it.

In a timeline a block belongs to one round, so that such memory has another number in every round: a round ends with its
free, the next begins with its allocation. Before the first round and after the last it has numbers outside the repeat.
For the allocator such a pair is nothing at all: the memory stays in use.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from vramplan.timeline import Alloc, Free, Part, Repeat

MOST = 2  # blocks that a round hands on: a layer's output, and what it returns beside it


@dataclass(slots=True)
class Handed:
    """At which indices of some parts blocks are handed over; the values number those that are handed over together."""

    laid_down: dict[int, int] = field(default_factory=dict)
    picked_up: dict[int, int] = field(default_factory=dict)
    repeats: dict[int, int] = field(default_factory=dict)
    """How many blocks the repeat at an index hands from round to round."""

    @classmethod
    def of_round(cls, parts: int, handed: int) -> "Handed":
        """Of a round with so many parts: it begins by picking up what it is handed, and ends by laying it down."""
        down = {parts - handed + place: place for place in range(handed)}
        return cls(down, {place: place for place in range(handed)})

    def enter(self, parts: tuple[Part, ...], index: int) -> None:
        """Note what the repeat at `index` is handed, hands from round to round, and leaves."""
        repeat, after = parts[index], index + 1
        while after < len(parts) and type(parts[after]) is Free:
            after += 1
        for handed in range(MOST, 0, -1):
            if isinstance(repeat, Repeat) and _hands_over(parts, index, after, repeat, handed):
                self.repeats[index] = handed
                for place in range(handed):
                    self.laid_down[index - handed + place] = self.picked_up[after + place] = place
                return


def _hands_over(parts: tuple[Part, ...], index: int, after: int, repeat: Repeat, handed: int) -> bool:
    """Whether so many blocks are handed over: those freed right before the repeat, and at the end of its body, have the
    labels and sizes of those taken first in the body, and right after the repeat."""
    body = repeat.body
    if repeat.times < 1 or index < handed or len(body) < 2 * handed:
        return False
    first, last = _labelled(body[:handed]), _labelled(parts[after : after + handed])
    if first is None or last is None:
        return False
    return _given(parts, parts[index - handed : index]) == first and _given(body, body[-handed:]) == last


def _labelled(parts: Iterable[Part]) -> list[tuple[str, int]] | None:
    """Labels and sizes of the blocks that the parts take; None if one of them is no allocation, or has no label."""
    parts = tuple(parts)
    found = [(part.label, part.bytes) for part in parts if type(part) is Alloc and part.label and part.bytes]
    return found if len(found) == len(parts) else None


def _given(parts: tuple[Part, ...], frees: tuple[Part, ...]) -> list[tuple[str, int]] | None:
    """Labels and sizes of the blocks that `frees` give back; None if one is no free, or of a block from elsewhere."""
    blocks = [part.block for part in frees if type(part) is Free]
    if len(blocks) < len(frees):
        return None
    taken = {part.block: part for part in parts if type(part) is Alloc and part.block in blocks}
    return _labelled(taken[block] for block in blocks) if len(taken) == len(blocks) else None
