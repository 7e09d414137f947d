"""Micro-batches that do the same are written once, as rounds: a step of sixteen then costs little more than one of two.

The first makes the gradients and the last hands over to the optimizer; those between differ in nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from vramplan.ledger import Phase
from vramplan.predict.script_items import Item, Rounds

#: What a stretch of a script does: equal for two stretches that differ in the numbers of their blocks alone.
_Shape = tuple[object, ...]


def folded(items: list[Item], kinds: Sequence[object], begin: int) -> list[Item]:
    """The same events as `items`, alike micro-batches as rounds.

    `kinds` says what each block is, by its number. Items before index `begin` are left where they are.
    """
    starts = [start for start in _starts(items) if start >= begin]
    written = items[: starts[0]] if starts else items.copy()
    for shape, alike in groupby(pairwise(starts), lambda span: _shape(items[slice(*span)], kinds)):
        (first, behind), *others = alike
        if shape is None or not others:
            written += items[first : others[-1][1] if others else behind]
        else:
            written.append(Rounds(1 + len(others), False, items[first:behind]))
    return written + items[starts[-1] :] if starts else written


def _starts(items: Sequence[Item]) -> Iterator[int]:
    """Where a micro-batch begins: FORWARD is entered, and what the one before held until then is given back."""
    for index, item in enumerate(items):
        if item is Phase.FORWARD:
            start = index + 1
            while start < len(items) and _gives(items[start]):
                start += 1
            yield start


def _gives(item: Item) -> bool:
    return isinstance(item, int) and item < 0


def _shape(items: Iterable[Item], kinds: Sequence[object]) -> _Shape | None:
    """What the items do, their own blocks numbered from 0; None where they give back blocks that they did not take, or
    keep some that they took: such a stretch cannot be a round."""
    own: dict[int, int] = {}
    given: set[int] = set()

    def renamed(items: Iterable[Item]) -> Iterator[object]:
        for item in items:
            if isinstance(item, Rounds):
                yield item.times, item.reverse, tuple(renamed(item.items))
            elif isinstance(item, int) and item >= 0:
                own[item] = len(own)
                yield kinds[item]
            elif isinstance(item, int):
                given.add(~item)
                yield own.get(~item, -1)
            else:
                yield item

    shape = tuple(renamed(items))
    return shape if given == own.keys() else None
