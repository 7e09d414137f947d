"""Leaves repeats early: proves that the rounds to come do what earlier ones did, and writes down their effect.

The proof. A round that frees only its own blocks meets the allocator through its free blocks alone. If these are the
same, address by address, before round i as before round j < i, then rounds i, i+1, ... make the choices of rounds
j, j+1, ...: the same free blocks are found, and where the driver was asked it is asked again and answers with
addresses further on, which stand beyond all older ones in either case. What rounds j to i-1 left in use lies wholly in
segments that are new since j (the free blocks are unchanged, so nothing was cut from them), and what the skipped rounds
leave in use is the same, further on by as much as addresses moved. High-water marks rise by equal steps, so the last
cycle, which is run, sets them. None of this holds near the budget, so rounds that come near it are run.

A round that asks the driver for nothing and gives back all that it took needs no comparison: free blocks are what
blocks in use leave of the segments, whole again, so it leaves everything as it found it, and so do all that follow; nor
can one of these set a mark. A micro-batch is such a round.
"""

from typing import NamedTuple

from vramplan.allocator.machine import Machine
from vramplan.allocator.pool import ADDRESS
from vramplan.allocator.program import Loop
from vramplan.allocator.result import Growth
from vramplan.ledger import Phase

MEMORY = 32  # rounds remembered: longer cycles are not found
SHORT = 3  # rounds of a loop that is over before a cycle could be left out
PATIENCE = 64  # rounds without a cycle, after which none is expected any more

State = tuple[Phase, list[int], list[int], list[int]]
Counters = tuple[Phase, int, int, int, int]


class _Before(NamedTuple):
    """How things stand before a round: counters, and the state that decides what it does."""

    round: int
    held: tuple[int, ...]
    allocated: int
    reserved: int
    calls: int
    retries: int
    next: int
    """Where the driver's next segment begins."""
    growth: int
    """Entries of `Machine.growth`."""
    state: State


class CycleFinder:
    """Watches one run of one loop."""

    def __init__(self, machine: Machine, loop: Loop, step: int) -> None:
        self._machine = machine
        self._loop = loop
        self._step = step  # by how much a round's name grows from one round to the next
        self._seen: dict[int, _Before | None] = {}  # by bytes cached
        self._latest: Counters | None = None  # before the round before
        self.watching = loop.closed and loop.times > 1

    def skip(self, i: int) -> int:
        """How many rounds, from round `i` on, need not be run: their effect is in the machine afterwards."""
        machine = self._machine
        machine.gauge.settle()
        if self._changed_nothing():
            self.watching = False
            return self._loop.times - i
        if self._loop.times <= SHORT:
            return 0
        # equal states have this in common; a whole state is written down only when that has come back
        cached = machine.driver.reserved - machine.gauge.allocated
        known = cached in self._seen
        before = self._seen.pop(cached, None)
        now = self._counters(i) if known else None
        if now is None or before is None or before.state != now.state:
            self._seen[cached] = now
            if len(self._seen) > MEMORY:
                del self._seen[next(iter(self._seen))]
            self.watching = i < PATIENCE
            return 0
        self.watching = False
        cycle = i - before.round
        times = self._affordable(before, now, (self._loop.times - i) // cycle - 1)
        if times > 0:
            self._repeat(before, now, times)
        return max(times, 0) * cycle

    def _changed_nothing(self) -> bool:
        """Whether the latest round left everything as it was."""
        machine, gauge, driver = self._machine, self._machine.gauge, self._machine.driver
        before = self._latest
        self._latest = gauge.phase, gauge.allocated, driver.reserved, driver.calls, machine.retries
        return before == self._latest and not machine.carried

    def _counters(self, i: int) -> _Before:
        machine, gauge, driver = self._machine, self._machine.gauge, self._machine.driver
        return _Before(
            i, tuple(gauge.held), gauge.allocated, driver.reserved,
            driver.calls, machine.retries, driver.next, len(machine.growth),
            (gauge.phase, machine.small.state(), machine.large.state(), machine.addresses_carried()),
        )  # fmt: skip

    def _affordable(self, before: _Before, now: _Before, times: int) -> int:
        """How many of `times` cycles stay within the budget, one more cycle, to be run after them, included."""
        if now.retries != before.retries:
            return 0
        budget, growth = self._machine.driver.budget, now.reserved - before.reserved
        if budget is None or not growth:
            return times
        highest = max(g.reserved for g in self._machine.growth[before.growth :])
        return min(times, (budget - highest) // growth - 1)

    def _repeat(self, before: _Before, now: _Before, times: int) -> None:
        """Write down `times` more of the cycle that lies between `before` and `now`."""
        machine, gauge, driver = self._machine, self._machine.gauge, self._machine.driver
        gauge.held[:] = [b + times * (b - a) for a, b in zip(before.held, now.held, strict=True)]
        gauge.allocated += times * (now.allocated - before.allocated)
        driver.calls += times * (now.calls - before.calls)
        driver.reserved += times * (now.reserved - before.reserved)
        cycle = now.round - before.round
        events, bytes_ = cycle * self._loop.events, now.reserved - before.reserved
        if repeated := machine.growth[before.growth :]:
            for k in range(1, times + 1):
                machine.growth += [Growth(g.event + k * events, g.reserved + k * bytes_) for g in repeated]
            driver.highest = max(driver.highest, max(g.reserved for g in repeated) + times * bytes_)
        if now.allocated > before.allocated:
            self._leave_in_use(before.next, now.next, cycle * self._step, times)
        driver.next += times * (now.next - before.next)

    def _leave_in_use(self, since: int, until: int, name: int, times: int) -> None:
        """What each cycle leaves in use stands in segments of its own, between the addresses `since` and `until`."""
        machine, shift = self._machine, until - since
        low, high = sorted((since, until))
        kept = [
            (frame, number, id(block))
            for frame, blocks in machine.frames.items()
            for number, block in blocks.items()
            if low <= block[ADDRESS] < high
        ]
        for k in range(1, times + 1):
            copies = machine.small.copy(low, high, k * shift)
            copies |= machine.large.copy(low, high, k * shift)
            for frame, number, original in kept:
                machine.frames.setdefault(frame + k * name, {})[number] = copies[original]
