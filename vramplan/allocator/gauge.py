"""The high-water marks of a replay, phase by phase."""

from operator import add
from typing import NamedTuple

from vramplan.allocator.driver import Driver
from vramplan.allocator.program import ROUNDED, Straight
from vramplan.allocator.result import Composition, PhaseMark
from vramplan.ledger import Component, Phase

#: The phase before a step's first is one of these: of the step before, or of the evaluation behind it.
_LAST = frozenset((Phase.STEP, Phase.EVALUATION))


class _Noted(NamedTuple):
    """A moment as it is noted: what the tensors are is worked out at the end, for the few moments that stay."""

    allocated: int
    reserved: int
    held: tuple[int, ...]
    run: Straight | None
    """what has happened since `held`: the events of `run` before number `event`"""
    event: int

    def moment(self) -> tuple[Composition, tuple[int, ...]]:
        """The moment, and the raw bytes of each component."""
        held = self.held
        if self.run:
            held = tuple(map(add, held, self.run.before(self.event)))
        *components, rounded = held
        raw = sum(components)
        moment = Composition(
            raw=raw,
            rounding=rounded - raw,
            unsplit=self.allocated - rounded,
            cached=self.reserved - self.allocated,
        )
        return moment, tuple(components)


class Gauge:
    """Counts what blocks are in use and notes the moment when most were, once per phase of the latest step."""

    __slots__ = ("_driver", "_noted", "_now", "_reserved", "allocated", "held", "highest", "phase")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._noted: dict[Phase, _Noted] = {}
        self._now: _Noted | None = None  # of this phase
        self._reserved: dict[Phase, int] = {}
        self.held = [0] * (ROUNDED + 1)  # raw bytes of each component, then all in multiples of 512
        self.allocated = 0  # the same in whole blocks
        self.phase = Phase.LOAD
        self.highest = 0  # allocated, in this phase so far

    def follow(self, other: "Gauge") -> None:
        """Go on where another one is."""
        self._noted, self._now, self._reserved = other._noted.copy(), other._now, other._reserved.copy()
        self.held, self.allocated = other.held.copy(), other.allocated
        self.phase, self.highest = other.phase, other.highest

    def settle(self) -> None:
        """Note this moment if it is the highest of its phase so far: call where blocks may be given back next."""
        if self.allocated > self.highest:
            self.note(None, 0)

    def note(self, run: Straight | None, event: int) -> None:
        """Note this moment, `held` being what it was before `run`, of which the events before `event` are done."""
        self.highest = self.allocated
        self._now = _Noted(self.allocated, self._driver.reserved, tuple(self.held), run, event)

    def enter(self, phase: Phase) -> None:
        """Close the phase that was, and count what follows under `phase`."""
        self.settle()
        self._reserved[self.phase] = self._driver.highest
        if self._now:
            self._noted[self.phase] = self._now
        if phase is Phase.FORWARD and self.phase in _LAST:  # a phase's mark is that of the latest step
            self._noted = {at: noted for at, noted in self._noted.items() if at is Phase.LOAD}
        self.phase = phase
        self._now = self._noted.get(phase)
        self.highest = self._now.allocated if self._now else 0

    def marks(self) -> tuple[PhaseMark, ...]:
        """The marks of all phases in which something was allocated."""
        self.enter(self.phase)
        moments = [(phase, self._noted[phase].moment()) for phase in Phase if phase in self._noted]
        return tuple(
            PhaseMark(phase, moment, _components(moment, held), self._reserved[phase])
            for phase, (moment, held) in moments
        )


def _components(moment: Composition, held: tuple[int, ...]) -> tuple[tuple[Component, int], ...]:
    """What each component holds; raw bytes that came in as `ALLOCATOR` stay there."""
    own = {Component.ALLOCATOR: moment.rounding + moment.unsplit}
    return tuple(
        (component, total)
        for component, size in zip(Component, held, strict=True)
        if (total := size + own.get(component, 0))
    )
