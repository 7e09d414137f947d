"""A timeline: the sequence of allocations and frees of a run. Every producer makes one, everything else reads one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from vramplan.ledger import Basis, Component, Entry, Ledger, Phase


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
        gauge = _Gauge(granularity)
        gauge.run(self.parts)
        gauge.settle()
        entries = tuple(
            Entry(phase, component, held, basis.get(component, Basis.MODELLED))
            for phase in Phase
            if phase in gauge.marks
            for component, held in zip(Component, gauge.marks[phase], strict=True)
            if held
        )
        return Ledger(entries, steady=sum(gauge.held))


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


_INDEX = {component: i for i, component in enumerate(Component)}
_ROUNDING = _INDEX[Component.ALLOCATOR]


class _Gauge:
    """Runs a timeline and keeps, per phase, what every component held at the highest moment."""

    def __init__(self, granularity: int) -> None:
        self.marks: dict[Phase, list[int]] = {}
        self.held = [0] * len(_INDEX)
        self._granularity = granularity
        self._total = 0
        self._highest: dict[Phase, int] = {}
        self._phase = Phase.LOAD
        self._sizes: dict[int, tuple[int, int, int]] = {}  # block -> component, raw bytes, rounding

    def run(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if isinstance(part, Alloc):
                rounding = -part.bytes % self._granularity
                self._sizes[part.block] = (_INDEX[part.component], part.bytes, rounding)
                self._take(_INDEX[part.component], part.bytes, rounding)
            elif isinstance(part, Free):
                self.settle()  # a maximum lies right before a free, the end of a phase, or the end of the run
                component, size, rounding = self._sizes[part.block]
                self._take(component, -size, -rounding)
            elif isinstance(part, Repeat):
                self._repeat(part)
            elif isinstance(part, Enter):
                self.settle()
                self._phase = part.phase

    def _repeat(self, part: Repeat) -> None:
        """Rounds change the totals linearly, so the highest is the first or the last: only these two are run."""
        if part.times < 1:
            return
        phase, left = self._phase, part.times - 1
        before = list(self.held)
        self.run(part.body)
        if left and self._phase is not phase:  # the other rounds begin in another phase: the first of them counts too
            before, left = list(self.held), left - 1
            self.run(part.body)
        if left:
            middle = left - 1
            self.held = [now + middle * (now - then) for now, then in zip(self.held, before, strict=True)]
            self._total = sum(self.held)
            self.run(part.body)

    def _take(self, component: int, size: int, rounding: int) -> None:
        self.held[component] += size
        self.held[_ROUNDING] += rounding
        self._total += size + rounding

    def settle(self) -> None:
        """Note the current moment if it is the highest of its phase so far."""
        if self._total > self._highest.get(self._phase, -1):
            self._highest[self._phase] = self._total
            self.marks[self._phase] = list(self.held)
