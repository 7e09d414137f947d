"""The high-water marks of a replay, phase by phase."""

from vramplan.allocator.driver import Driver
from vramplan.allocator.pool import Pool
from vramplan.allocator.result import Moment, PhaseMark
from vramplan.ledger import Component, Phase


class Gauge:
    """Counts what blocks are in use and notes the moment when most were, once per phase."""

    __slots__ = ("_driver", "_marks", "_pools", "_reserved", "allocated", "held", "highest", "phase", "rounded")

    def __init__(self, driver: Driver, pools: tuple[Pool, ...]) -> None:
        self._driver = driver
        self._pools = pools
        self._marks: dict[Phase, tuple[Moment, tuple[int, ...]]] = {}
        self._reserved: dict[Phase, int] = {}
        self.held = [0] * len(Component)  # raw bytes of each component
        self.rounded = 0  # the same in multiples of 512
        self.allocated = 0  # the same in whole blocks
        self.phase = Phase.LOAD
        self.highest = 0  # allocated, in this phase so far

    def settle(self) -> None:
        """Note this moment if it is the highest of its phase so far: call before blocks are given back."""
        if self.allocated > self.highest:
            self.highest = self.allocated
            self._marks[self.phase] = (self.moment(), tuple(self.held))

    def enter(self, phase: Phase) -> None:
        """Close the phase that was, and count what follows under `phase`."""
        self.settle()
        self._reserved[self.phase] = self._driver.highest
        self.phase = phase
        known = self._marks.get(phase)
        self.highest = known[0].allocated if known else 0

    def moment(self) -> Moment:
        """What the memory consists of now."""
        raw = sum(self.held)
        return Moment(
            raw=raw,
            rounding=self.rounded - raw,
            unsplit=self.allocated - self.rounded,
            cached=self._driver.reserved - self.allocated,
            largest_free=max(pool.largest() for pool in self._pools),
            segments=sum(pool.pieces() for pool in self._pools),
        )

    def marks(self) -> tuple[PhaseMark, ...]:
        """The marks of all phases in which something was allocated."""
        self.enter(self.phase)
        return tuple(
            PhaseMark(phase, moment, _components(moment, held), self._reserved[phase])
            for phase, (moment, held) in sorted(self._marks.items(), key=lambda item: list(Phase).index(item[0]))
        )


def _components(moment: Moment, held: tuple[int, ...]) -> tuple[tuple[Component, int], ...]:
    """What each component holds; raw bytes that came in as `ALLOCATOR` stay there."""
    own = {Component.ALLOCATOR: moment.rounding + moment.unsplit}
    return tuple(
        (component, total)
        for component, size in zip(Component, held, strict=True)
        if (total := size + own.get(component, 0))
    )
