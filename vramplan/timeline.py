"""A timeline: the sequence of allocations and frees of a run. Every producer makes one, everything else reads one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from operator import add
from typing import NamedTuple

from vramplan.ledger import COMPONENT_INDEX, Basis, Component, Entry, Ledger, Phase


class Enter(NamedTuple):
    """From here on the high-water mark belongs to `phase`."""

    phase: Phase


class Alloc(NamedTuple):
    """`bytes` raw tensor bytes are taken; `block` names the storage until its `Free`."""

    block: int
    bytes: int
    component: Component
    label: str


class Free(NamedTuple):
    """The storage `block` is given back."""

    block: int


class EmptyCache(NamedTuple):
    """The allocator gives its cached segments back to the driver (`torch.cuda.empty_cache`)."""


class Repeat(NamedTuple):
    """`body` happens `times` times: once per layer.

    A block allocated in a repeated body exists once per round. Another `Repeat` with as many rounds may free it: its
    round i frees the instance of round i, or of round `times - 1 - i` when `reverse` (backward walks the layers in
    reverse). Repeats may nest.
    """

    body: "tuple[Part, ...]"
    times: int
    reverse: bool = False


Event = Enter | Alloc | Free | EmptyCache
Part = Enter | Alloc | Free | EmptyCache | Repeat


@dataclass(frozen=True)
class Timeline:
    """What a run allocates and frees, in order; repeated layers are written once."""

    parts: tuple[Part, ...]

    def events(self) -> Iterator[Event]:
        """Every event of the run: repeats written out, each block under a number of its own."""
        return _Expansion().expand(self.parts, ())

    def ledger(self, basis: Mapping[Component, Basis], *, granularity: int = 1) -> Ledger:
        """The high-water mark of each phase by component, and what is left at the end (between steps).

        `granularity` is what the allocator rounds a block up to: 512 on CUDA (the rounding is its own component), 1 on
        CPU. A component without a basis of its own is `modelled`.
        """
        return self.marks(granularity).ledger(basis)

    def marks(self, granularity: int = 1) -> "Marks":
        """The highest moment of each phase, and the last of all; blocks are rounded up to `granularity`."""
        gauge = _Marker(granularity)
        gauge.run(self.parts)
        gauge.settle()
        return gauge.result()


class _Expansion:
    """Gives each instance of a repeated block its own number."""

    def __init__(self) -> None:
        self._depth: dict[int, int] = {}  # how many repeats enclose the block's allocation
        self._numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        self._next = count()

    def expand(self, parts: tuple[Part, ...], rounds: tuple[int, ...]) -> Iterator[Event]:
        for part in parts:
            if isinstance(part, Alloc):
                self._depth[part.block] = len(rounds)
                number = next(self._next)  # a block may be taken again after its free
                self._numbers[part.block, rounds] = number
                yield part._replace(block=number)
            elif isinstance(part, Free):
                yield Free(self._numbers[part.block, rounds[: self._depth[part.block]]])
            elif isinstance(part, Repeat):
                for i in range(part.times):
                    yield from self.expand(part.body, (*rounds, part.times - 1 - i if part.reverse else i))
            else:
                yield part


_ROUNDING = COMPONENT_INDEX[Component.ALLOCATOR]
_MOVES = {Alloc, Free, EmptyCache}


class Holdings(NamedTuple):
    """What was held at one instant."""

    total: int
    """with each block rounded up"""
    held: list[int]
    """raw bytes of each component"""

    def components(self) -> list[int]:
        """Bytes of each component, which add up to the total: rounding is the allocator's."""
        whole = self.held.copy()
        whole[_ROUNDING] += self.total - sum(self.held)
        return whole

    def after(self, earlier: "Holdings") -> "Holdings":
        """This moment when what was held at `earlier` is held besides."""
        return Holdings(earlier.total + self.total, list(map(add, earlier.held, self.held)))


class Marks(NamedTuple):
    """The highest moment of each phase of a stretch of a run, and what the stretch leaves held."""

    highest: dict[Phase, Holdings]
    end: Holdings

    def then(self, later: "Marks") -> "Marks":
        """The marks of both stretches. The later one begins by entering a phase and frees nothing of the earlier."""
        highest = self.highest.copy()
        for phase, moment in later.highest.items():
            known = highest.get(phase)
            if known is None or self.end.total + moment.total > known.total:
                highest[phase] = moment.after(self.end)
        return Marks(highest, later.end.after(self.end))

    def ledger(self, basis: Mapping[Component, Basis]) -> Ledger:
        """An entry for every component held at a phase's mark; one without a basis of its own is `modelled`."""
        entries = tuple(
            Entry(phase, component, held, basis.get(component, Basis.MODELLED))
            for phase in Phase
            if phase in self.highest
            for component, held in zip(Component, self.highest[phase].components(), strict=True)
            if held
        )
        return Ledger(entries, steady=self.end.total)


class _Marker:
    """Runs a timeline and keeps, per phase, what every component held at the highest moment."""

    def __init__(self, granularity: int) -> None:
        self.marks: dict[Phase, Holdings] = {}
        self.total = 0
        self._held = [0] * len(COMPONENT_INDEX)
        self._granularity = granularity
        self._phase = Phase.LOAD
        self._sizes: dict[int, tuple[int, int, int]] = {}  # block -> index of its component, raw bytes, rounded up

    def run(self, parts: tuple[Part, ...]) -> None:
        """Run parts of any kind, the straight stretches between repeats and phases at once."""
        begin = 0
        for i, part in enumerate(parts):
            kind = type(part)
            if kind is Alloc or kind is Free:
                continue
            if begin < i:
                self._note(self._straight(parts[begin:i]))
            begin = i + 1
            if isinstance(part, Repeat):
                self._repeat(part)
            elif isinstance(part, Enter):
                self.settle()
                self._phase = part.phase
        self._note(self._straight(parts[begin:]))

    def result(self) -> Marks:
        """The marks so far, and what is held now."""
        return Marks(self.marks, Holdings(self.total, self._held.copy()))

    def settle(self) -> None:
        """Note the current moment if it is the highest of its phase so far."""
        known = self.marks.get(self._phase)
        if known is None or self.total > known.total:
            self.marks[self._phase] = Holdings(self.total, self._held.copy())

    def _note(self, moment: Holdings | None) -> None:
        if moment is None:
            return
        known = self.marks.get(self._phase)
        if known is None or moment.total > known.total:
            self.marks[self._phase] = moment

    def _straight(self, parts: tuple[Part, ...]) -> Holdings | None:
        """Run events that move memory; the highest moment before a free among them, None if there is no free."""
        held, sizes, granularity, total = self._held, self._sizes, self._granularity, self.total
        highest, then = 0, None
        for part in parts:
            if type(part) is Alloc:
                block, size, component, _ = part
                index = COMPONENT_INDEX[component]
                rounded = size + -size % granularity
                sizes[block] = index, size, rounded
                held[index] += size
                total += rounded
            elif type(part) is Free:
                if then is None or total > highest:
                    highest, then = total, held.copy()
                index, size, rounded = sizes[part.block]
                held[index] -= size
                total -= rounded
        self.total = total
        return None if then is None else Holdings(highest, then)

    def _repeat(self, part: Repeat) -> None:
        """Rounds change the totals linearly, so the highest is the first or the last: only these count."""
        if part.times < 1:
            return
        kinds = set(map(type, part.body))
        if kinds <= _MOVES:
            if len(kinds) < 2:
                self._repeat_uniform(part)
            else:
                self._repeat_straight(part)
            return
        phase, left = self._phase, part.times - 1
        before, total = self._held.copy(), self.total
        self.run(part.body)
        if left and self._phase is not phase:  # the other rounds begin in another phase: the first of them counts too
            before, total, left = self._held.copy(), self.total, left - 1
            self.run(part.body)
        if left:
            self._advance(before, total, left - 1)
            self.run(part.body)

    def _repeat_uniform(self, part: Repeat) -> None:
        """Rounds that only take or only give back have no highest moment between their ends."""
        self.settle()
        times, held = part.times, self._held
        for each in part.body:
            if type(each) is Alloc:
                index, rounded = COMPONENT_INDEX[each.component], each.bytes + -each.bytes % self._granularity
                self._sizes[each.block] = index, each.bytes, rounded
                held[index] += times * each.bytes
                self.total += times * rounded
            elif type(each) is Free:
                index, size, rounded = self._sizes[each.block]
                held[index] -= times * size
                self.total -= times * rounded

    def _repeat_straight(self, part: Repeat) -> None:
        """Every round has its highest moment at the same place: one round tells them all."""
        before, total = self._held.copy(), self.total
        moment, left = self._straight(part.body), part.times - 1
        change = [now - then for now, then in zip(self._held, before, strict=True)]
        growth = self.total - total
        if growth > 0 and moment is not None:
            held = [then + left * more for then, more in zip(moment.held, change, strict=True)]
            moment = Holdings(moment.total + left * growth, held)
        self._note(moment)
        self._advance(before, total, left)

    def _advance(self, before: list[int], total: int, rounds: int) -> None:
        """Skip `rounds` that do what was done since `before`."""
        self._held[:] = [now + rounds * (now - then) for now, then in zip(self._held, before, strict=True)]
        self.total += rounds * (self.total - total)
