"""The high-water marks of a step for any batch and sequence, without writing its events out."""

from collections.abc import Sequence
from typing import NamedTuple

from vramplan.ledger import COMPONENT_INDEX, Component, Phase
from vramplan.predict.script_items import Item, Rounds
from vramplan.timeline import Holdings, Marks


class _Candidate(NamedTuple):
    """A moment that can be the highest of its phase."""

    phase: Phase
    change: dict[int, int]
    """class -> how many more are held than at the candidate before"""
    counts: tuple[int, ...]
    """how many of each class are held"""


class Moments:
    """The moments of a step that can be a phase's highest, each as counts of the tensors held then.

    A class of tensors is a size, as it follows from batch and sequence, and a component. How many of a class are held
    at a moment depends on neither batch nor sequence, so the events are walked once. Only a moment before something is
    given back can be the highest, and no moment whose neighbour in the same phase holds as many of every class. For a
    batch and a sequence the totals of the others follow by adding changes times sizes. Moments of equal total keep the
    order of the run: if one left out for a later one has the same total, it holds the same of every component.
    """

    def __init__(self, blocks: list[tuple[int, Component]], items: list[Item]) -> None:
        """`blocks`: number of the size, and component."""
        classes: dict[tuple[int, Component], int] = {}
        self._class = [classes.setdefault(block, len(classes)) for block in blocks]
        self._sizes = [size for size, _ in classes]
        self._components = [COMPONENT_INDEX[component] for _, component in classes]
        self._counts = [0] * len(classes)
        self._since: dict[int, int] = {}  # class -> how many more than at the latest candidate
        self._phase = Phase.LOAD
        self._rising = False  # whether something was taken since the last look, or the phase is new
        self._candidates: list[_Candidate] = []
        self._walk(items)
        self._look()

    def marks(self, sizes: list[int], granularity: int) -> Marks:
        """The marks when size number i is `sizes[i]` bytes, and blocks are rounded up to `granularity`."""
        raw = [sizes[i] for i in self._sizes]
        rounded = [size + -size % granularity for size in raw]
        highest: dict[Phase, tuple[int, tuple[int, ...]]] = {}
        total, phase, top = 0, None, -1
        for now, change, counts in self._candidates:
            for number, more in change.items():
                total += more * rounded[number]
            if now is not phase:
                phase, top = now, highest[now][0] if now in highest else -1
            if total > top:
                top = total
                highest[now] = total, counts
        end = sum(count * size for count, size in zip(self._counts, rounded, strict=True))
        marks = {phase: self._moment(total, counts, raw) for phase, (total, counts) in highest.items()}
        return Marks(marks, self._moment(end, self._counts, raw))

    def _moment(self, total: int, counts: Sequence[int], raw: list[int]) -> Holdings:
        held = [0] * len(COMPONENT_INDEX)
        for component, count, size in zip(self._components, counts, raw, strict=True):
            held[component] += count * size
        return Holdings(total, held)

    def _walk(self, items: list[Item], times: int = 1) -> None:
        """Every event happens `times` times at once."""
        counts, since, class_of = self._counts, self._since, self._class
        for item in items:
            if type(item) is int:
                if item >= 0:
                    number, more = class_of[item], times
                    self._rising = True
                else:
                    if self._rising:
                        self._look()
                    number, more = class_of[~item], -times
                counts[number] += more
                since[number] = since.get(number, 0) + more
            elif type(item) is Rounds:
                self._rounds(item.times, item.items)
            else:
                assert isinstance(item, Phase)
                self._look()
                self._phase, self._rising = item, True

    def _rounds(self, times: int, body: list[Item]) -> None:
        """Rounds change the counts linearly, so the highest is the first or the last of a phase: only these count."""
        if times < 1:
            return
        if len(body) == 1 and type(body[0]) is int:
            self._walk(body, times)
            return
        phase, left, before = self._phase, times - 1, self._counts.copy()
        self._walk(body)
        if left and self._phase is not phase:
            left, before = left - 1, self._counts.copy()
            self._walk(body)
        if left:
            for number, (now, then) in enumerate(zip(self._counts, before, strict=True)):
                more = (left - 1) * (now - then)
                self._counts[number] += more
                self._since[number] = self._since.get(number, 0) + more
            self._walk(body)

    def _look(self) -> None:
        """Make this moment a candidate, unless the one before holds as much; drop those before that hold no more."""
        if not self._rising:
            return
        self._rising = False
        found, change = self._candidates, {number: more for number, more in self._since.items() if more}
        while found and found[-1].phase is self._phase:
            if min(change.values(), default=0) >= 0:
                for number, more in found.pop().change.items():
                    change[number] = change.get(number, 0) + more
            elif max(change.values()) <= 0:
                return
            else:
                break
        found.append(_Candidate(self._phase, change, tuple(self._counts)))
        self._since.clear()
