"""Runs a timeline through the caching allocator.

How fast it can be: a round of a repeat is skipped when it is proved to do what an earlier one did (`cycle`). Layers
seldom are: the holes that loading left behind fill up layer by layer, so that nearly every layer of a deep model is
placed in a way of its own (in the backward of llama-3.1-405b, 122 of 125). Such rounds have to be played, event by
event, so the time follows the depth, and what counts is the time of one event.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from vramplan.allocator.cycle import CycleFinder
from vramplan.allocator.machine import Machine, Refused
from vramplan.allocator.pool import ADDRESS, FREE, LEFT, RIGHT, SIZE, Block
from vramplan.allocator.program import (
    GIVE_LARGE,
    GIVE_SMALL,
    LARGE,
    LAY_DOWN,
    ROUND_BITS,
    Begin,
    Emptied,
    Loop,
    Program,
    Step,
    Straight,
    prepare,
)
from vramplan.allocator.result import Replay
from vramplan.timeline import Part


def replay(parts: Iterable[Part] | Program, *, budget: int | None = None) -> Replay:
    """What PyTorch's CUDA caching allocator makes of a timeline's parts, or of its events, on one stream.

    `budget` caps the bytes reserved: a request above it first gives cached segments back, then ends the replay with
    `oom`. Repeats are left early once every round does the same to the allocator; the result is that of all events.
    What is replayed more than once is better prepared before, and what goes by other rules than the usual has to be.
    """
    program = parts if isinstance(parts, Program) else prepare(parts)
    try:
        machine = _started(program, Machine(budget, program.rules))
        _Run(machine).program(program)
    except Refused as refused:
        return refused.machine.result(refused.report(program.requests))
    return machine.result(None)


def _started(program: Program, machine: Machine) -> Machine:
    """The machine where a program begins: `machine` after what comes before, or a copy of what that left earlier."""
    before, budget = program.before, machine.driver.budget
    if before is None:
        return machine
    if before.left is None:
        left = _started(before, Machine(None, program.rules))
        _Run(left).program(before)
        before.left = left  # only once it is whole: another thread may ask, or the run be interrupted
    if budget is None or before.left.driver.highest <= budget:
        return before.left.copy(budget)
    machine = _started(before, machine)
    _Run(machine).program(before)
    return machine


#: One round of a body: a name that tells it from all others; the blocks in use that it took, by number, behind those of
#: the rounds around it; how many events came before.
_Round = tuple[int, tuple[dict[int, Block], ...], int]


class _Run:
    """Walks a program over a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._pools = machine.small, machine.large
        self._hot = tuple((pool.sizes, pool.shelves, pool.split_from) for pool in self._pools)

    def program(self, program: Program) -> None:
        """Run everything."""
        self._body(program.body, (0, (self._machine.frames.setdefault(0, {}),), program.start))

    def _body(self, body: tuple[Step, ...], round_: _Round) -> None:
        for step in body:
            if type(step) is Straight:
                self._straight(step, (round_,))
            elif type(step) is Loop:
                self._loop(step, round_)
            elif type(step) is Begin:
                self._machine.gauge.enter(step.phase)
            elif type(step) is Emptied:
                self._machine.release(round_[-1] + step.event)

    def _loop(self, loop: Loop, outside: _Round) -> None:
        rounds = self._rounds(loop, outside)
        if len(loop.body) == 1 and type(loop.body[0]) is Straight:
            self._straight(loop.body[0], rounds)
        else:
            for round_ in rounds:
                self._body(loop.body, round_)

    def _rounds(self, loop: Loop, outside: _Round) -> Iterator[_Round]:
        """Every round, or as many as it takes until the rest is known."""
        known, (name, frames, event) = self._machine.frames, outside
        step = 1 << ROUND_BITS * len(frames)
        cycles = CycleFinder(self._machine, loop, -step if loop.reverse else step)
        i = 0
        while True:
            if cycles.watching:
                i += cycles.skip(i)
            if i >= loop.times:
                return
            own = name + step * (loop.times - i if loop.reverse else i + 1)
            frame = known.setdefault(own, {})
            yield own, (*frames, frame), event + loop.event + i * loop.events
            if not frame:
                del known[own]
            i += 1

    def _straight(self, run: Straight, rounds: Iterable[_Round]) -> None:
        """The inner loop: best fit, split, merge, written out because a call costs as much as its work."""
        gauge, expandable, (small, large) = self._machine.gauge, self._machine.expandable, self._hot
        carried = self._machine.carried
        for _, frames, event in rounds:
            allocated, highest, here = gauge.allocated, gauge.highest, frames[-1]
            for kind, number, depth, size, offset in run.ops:
                sizes, shelves, least = large if kind & LARGE else small
                if kind < GIVE_SMALL:
                    i = bisect_left(sizes, size)
                    try:
                        while not (shelf := shelves[have := sizes[i]]):
                            del sizes[i], shelves[have]
                    except IndexError:  # no shelf is left
                        gauge.allocated = allocated
                        block = self._grow(run, kind, number, size, event, offset)
                        have = block[SIZE]
                    else:
                        block = shelf.pop(0)
                        if expandable and (right := block[RIGHT]) and right[FREE] is None:
                            block = expandable[kind].prefer(block)
                            have = block[SIZE]
                        block[FREE] = False
                    here[number] = block
                    rest = have - size
                    if rest < least:
                        allocated += have
                        continue
                    allocated += size
                    block[SIZE] = size
                    right = block[RIGHT]
                    block[RIGHT] = block = [block[ADDRESS] + size, rest, block, right, True]
                    if right:
                        right[LEFT] = block
                    size = rest
                else:
                    if allocated > highest:
                        highest = gauge.allocated = allocated
                        gauge.note(run, offset)
                    if kind > GIVE_LARGE:
                        if kind == LAY_DOWN:
                            carried[depth] = here.pop(number)
                        else:
                            here[number] = carried.pop(depth)
                        continue
                    block = frames[depth].pop(number)
                    _, size, left, right, _ = block
                    allocated -= size
                    if right and right[FREE]:
                        more = right[SIZE]
                        shelf = shelves[more]
                        del shelf[0 if shelf[0] is right else bisect_left(shelf, right)]
                        size += more
                        block[RIGHT] = right = right[RIGHT]
                        if right:
                            right[LEFT] = block
                    if left and left[FREE]:
                        more = left[SIZE]
                        shelf = shelves[more]
                        del shelf[0 if shelf[0] is left else bisect_left(shelf, left)]
                        size += more
                        left[RIGHT] = right
                        if right:
                            right[LEFT] = left
                        block = left
                    block[SIZE] = size
                    block[FREE] = True
                if size in shelves:
                    insort(shelves[size], block)
                else:
                    shelves[size] = [block]
                    insort(sizes, size)
            gauge.allocated = allocated
            for i, change in run.total:
                gauge.held[i] += change

    def _grow(self, run: Straight, kind: int, number: int, size: int, event: int, offset: int) -> Block:
        gauge = self._machine.gauge
        if gauge.allocated > gauge.highest:
            gauge.note(run, offset)  # cached segments may go
        return self._machine.grow(self._pools[kind], number, size, event + offset)
