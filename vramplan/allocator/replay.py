"""Runs a timeline through the caching allocator."""

from collections.abc import Callable, Iterable
from typing import Any

from vramplan.allocator.cycle import CycleFinder
from vramplan.allocator.machine import Machine, Refused
from vramplan.allocator.pool import ADDRESS_BITS, Pool
from vramplan.allocator.program import GIVE_SMALL, ROUND_BITS, Compiler, Loop, Mark, Step, Straight
from vramplan.allocator.result import Replay
from vramplan.timeline import Part


def replay(parts: Iterable[Part], *, budget: int | None = None, expandable_segments: bool = False) -> Replay:
    """What PyTorch's CUDA caching allocator makes of a timeline's parts, or of its events, on one stream.

    `budget` caps the bytes reserved: a request above it first gives cached segments back, then ends the replay with
    `oom`. Repeats are left early once every round does the same to the allocator; the result is that of all events.
    """
    compiler = Compiler()
    body, _ = compiler.body(parts)
    machine = Machine(budget, expandable_segments)
    try:
        _Run(machine).body(body, (0,), 0)
    except Refused as refused:
        return machine.result(refused.report(machine, compiler.labels))
    return machine.result(None)


class _Run:
    """Walks a program over a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        small, large = machine.small, machine.large
        self._pools = (small, large)
        # by kind of operation
        self._calls: tuple[Callable[[int], Any], ...] = (small.take, large.take, small.give, large.give)

    def body(self, body: tuple[Step, ...], names: tuple[int, ...], event: int) -> None:
        """Run one body: `names[d]` tells apart the blocks allocated `d` repeats deep, `event` events came before."""
        for step in body:
            if type(step) is Straight:
                self._straight(step, names, event)
            elif type(step) is Loop:
                self._loop(step, names, event + step.event)
            elif type(step) is Mark and step.phase:
                self._machine.gauge.enter(step.phase)
            else:
                self._machine.release(event + step.event)  # type: ignore[union-attr]

    def _straight(self, run: Straight, names: tuple[int, ...], event: int) -> None:
        """The inner loop: a block in use is an integer, its size above its address."""
        gauge, live, calls, name = self._machine.gauge, self._machine.live, self._calls, names[-1]
        allocated, highest = gauge.allocated, gauge.highest
        for kind, block, depth, size, offset in run.ops:
            if kind < GIVE_SMALL:
                key = calls[kind](size)
                if key < 0:
                    gauge.allocated = allocated
                    key = self._grow(run, self._pools[kind], block, size, event, offset)
                live[name + block] = key
                allocated += key >> ADDRESS_BITS
            else:
                if allocated > highest:
                    highest = gauge.allocated = allocated
                    gauge.note(run, offset)
                key = live.pop(names[depth] + block)
                allocated -= key >> ADDRESS_BITS
                calls[kind](key)
        gauge.allocated = allocated
        for i, change in run.total:
            gauge.held[i] += change

    def _grow(self, run: Straight, pool: Pool, block: int, size: int, event: int, offset: int) -> int:
        gauge = self._machine.gauge
        if gauge.allocated > gauge.highest:
            gauge.note(run, offset)  # cached segments may go
        return self._machine.grow(pool, block, size, event + offset)

    def _loop(self, loop: Loop, names: tuple[int, ...], event: int) -> None:
        """Run every round, or as many as it takes until the rest is known."""
        step = 1 << ROUND_BITS * len(names)
        cycles = CycleFinder(self._machine, loop, -step if loop.reverse else step)
        i = 0
        while i < loop.times:
            i += cycles.skip(i)
            number = loop.times - 1 - i if loop.reverse else i
            self.body(loop.body, (*names, names[-1] + number * step), event + i * loop.events)
            i += 1
