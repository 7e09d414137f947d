"""Runs a timeline through the caching allocator."""

from collections.abc import Iterable

from vramplan.allocator.cycle import CycleFinder
from vramplan.allocator.machine import Machine, Refused
from vramplan.allocator.program import ENTER, GIVE, LOOP, ROUND_BITS, TAKE, Compiler, Loop, Op, Program
from vramplan.allocator.result import Replay
from vramplan.timeline import Part


def replay(parts: Iterable[Part], *, budget: int | None = None, expandable_segments: bool = False) -> Replay:
    """What PyTorch's CUDA caching allocator makes of a timeline's parts, or of its events, on one stream.

    `budget` caps the bytes reserved: a request above it first gives cached segments back, then ends the replay with
    `oom`. Repeats are left early once every round does the same to the allocator; the result is that of all events.
    """
    program = Compiler().compile(parts)
    machine = Machine(budget, expandable_segments)
    run = _Run(program, machine)
    try:
        run.ops(program.ops, (0,), 0)
    except Refused as refused:
        return machine.result(refused.report(machine, program.labels))
    return machine.result(None)


class _Run:
    """Walks a program over a machine."""

    def __init__(self, program: Program, machine: Machine) -> None:
        self._program = program
        self._machine = machine

    def ops(self, ops: tuple[Op, ...], names: tuple[int, ...], event: int) -> None:
        """Run one body: `names[d]` tells apart the blocks allocated `d` repeats deep, `event` events came before."""
        machine = self._machine
        take, give, live, name = machine.take, machine.give, machine.live, names[-1]
        for kind, block, depth, size, raw, component, offset in ops:
            if kind == TAKE:
                live[name + block] = take(block, size, raw, component, event + offset)
            elif kind == GIVE:
                give(live.pop(names[depth] + block), size, raw, component)
            elif kind == LOOP:
                self._loop(self._program.loops[block], names, event + offset)
            elif kind == ENTER:
                machine.gauge.enter(self._program.phases[block])
            else:
                machine.release(event + offset)

    def _loop(self, loop: Loop, names: tuple[int, ...], event: int) -> None:
        """Run every round, or as many as it takes until the rest is known."""
        step = 1 << ROUND_BITS * len(names)
        cycles = CycleFinder(self._machine, loop, -step if loop.reverse else step)
        i = 0
        while i < loop.times:
            i += cycles.skip(i)
            number = loop.times - 1 - i if loop.reverse else i
            self.ops(loop.body, (*names, names[-1] + number * step), event + i * loop.events)
            i += 1
