"""Blocks that rounds hand over to each other: one piece of memory that a timeline names anew in every round.

A layer's input is the output of the layer before. Written once per layer it is a block of the round, given back at the
round's end and taken again where the next one begins; before the first round and after the last it is a block outside.
To the allocator nothing happens there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from vramplan.timeline import Alloc, Free, Part, Repeat

MOST = 2  # a layer's output, and what it returns beside it


@dataclass(slots=True)
class Handed:
    """Where among some parts blocks are handed over, by index; the values tell those handed over together apart."""

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
    """Whether what is given back right before a round is what it takes first, of one label and size."""
    body = repeat.body
    if repeat.times < 1 or index < handed or len(body) < 2 * handed:
        return False
    first, last = _labelled(body[:handed]), _labelled(parts[after : after + handed])
    if first is None or last is None:
        return False
    return _given(parts, parts[index - handed : index]) == first and _given(body, body[-handed:]) == last


def _labelled(parts: Iterable[Part]) -> list[tuple[str, int]] | None:
    """Labels and sizes of what is taken; None when something else happens, or a label is missing."""
    parts = tuple(parts)
    found = [(part.label, part.bytes) for part in parts if type(part) is Alloc and part.label and part.bytes]
    return found if len(found) == len(parts) else None


def _given(parts: tuple[Part, ...], frees: tuple[Part, ...]) -> list[tuple[str, int]] | None:
    """The same of what is given back, where the parts themselves took it."""
    blocks = [part.block for part in frees if type(part) is Free]
    if len(blocks) < len(frees):
        return None
    taken = {part.block: part for part in parts if type(part) is Alloc and part.block in blocks}
    return _labelled(taken[block] for block in blocks) if len(taken) == len(blocks) else None
