"""A timeline made ready to be replayed: events between repeats as flat operations, repeats once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vramplan.allocator.handed import Handed
from vramplan.allocator.rules import SMALL_SIZE, Rules, block_size
from vramplan.ledger import COMPONENT_INDEX, Phase
from vramplan.timeline import Alloc, Enter, Free, Part, Repeat

if TYPE_CHECKING:
    from vramplan.allocator.machine import Machine

TAKE_SMALL, TAKE_LARGE, GIVE_SMALL, GIVE_LARGE, LAY_DOWN, PICK_UP = range(6)
"""The last two hand a block over from round to round: nothing moves, it belongs to another number."""
LARGE = 1  # the bit that tells a large one
ROUND_BITS = 32  # of a block's name, for its number in the program and for each enclosing repeat's round
ROUNDED = len(COMPONENT_INDEX)  # stands behind the components: bytes of all of them in multiples of 512


#: A block taken or given back, as the replay's inner loop unpacks it, so it holds what that needs and no more: kind,
#: number of the block in the program, how many repeats enclose the block's allocation (of one handed over: which of
#: those that are), bytes (a multiple of 512), how many events of the enclosing body come before.
Op = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Straight:
    """Operations with nothing else between them; what the tensors amount to does not depend on the allocator."""

    ops: list[Op] = field(default_factory=list)
    moves: list[tuple[int, int]] = field(default_factory=list)
    """for each operation the index of its component, and its raw bytes, negative when given back"""
    total: list[tuple[int, int]] = field(default_factory=list)
    """by how much the whole changes each index of `Gauge.held`"""

    def before(self, event: int) -> list[int]:
        """By how much each index of `Gauge.held` has changed when that event of the body is about to happen."""
        held = [0] * (ROUNDED + 1)
        for (_, _, _, size, place), (component, raw) in zip(self.ops, self.moves, strict=True):
            if place >= event:
                break
            held[component] += raw
            held[ROUNDED] += size if raw > 0 else -size
        return held


@dataclass(frozen=True, slots=True)
class Loop:
    """A repeat."""

    body: "tuple[Step, ...]"
    times: int
    reverse: bool
    events: int
    """events in one round, inner repeats written out"""
    closed: bool
    """a round frees nothing but what it took"""
    event: int


@dataclass(frozen=True, slots=True)
class Begin:
    """A new phase begins."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Emptied:
    """The cache is emptied."""

    event: int


Step = Straight | Loop | Begin | Emptied


@dataclass(slots=True)
class Program:
    """A timeline made ready, maybe to go on where another one ends."""

    body: tuple[Step, ...]
    requests: list[Alloc]
    """by number of the block"""
    taken: dict[int, tuple[Op, int, int]]
    """block of the timeline -> the operation that took it last, index of its component, raw bytes"""
    before: "Program | None"
    start: int
    """how many events come before"""
    end: int
    rules: Rules
    left: "Machine | None" = None
    """what it leaves, once it has been replayed for a program that goes on from there"""


def prepare(parts: Iterable[Part], before: Program | None = None, *, rules: Rules | None = None) -> Program:
    """The program for a timeline's parts, or for its events; for those that follow a program's, with `before`.

    What many timelines begin with is then replayed once for all of them. A program goes on by the rules of the one
    before; without one, `rules` are those of torch 2.12 and later where none are given.
    """
    compiler = _Compiler(before)
    body, events = compiler.body(parts)
    start = before.end if before else 0
    return Program(
        body=body,
        requests=compiler.requests,
        taken=compiler.taken,
        before=before,
        start=start,
        end=start + events,
        rules=before.rules if before else rules or Rules(),
    )


class _Compiler:
    """Translates parts; blocks get consecutive numbers, events that move no memory get no operation."""

    def __init__(self, before: Program | None) -> None:
        self.requests = before.requests.copy() if before else []
        self.taken = before.taken.copy() if before else {}
        self._oldest = 0  # the lowest number of a block freed since it was last set

    def body(self, parts: Iterable[Part], depth: int = 0, handed: int = 0) -> tuple[tuple[Step, ...], int]:
        """The steps for `parts`, and how many events they are; `handed` blocks come from the round before."""
        steps: list[Step] = []
        run = Straight()
        event = 0
        parts = parts if isinstance(parts, tuple) else tuple(parts)
        places = Handed.of_round(len(parts), handed)
        for index, part in enumerate(parts):
            if type(part) is Repeat:
                places.enter(parts, index)
        for index, part in enumerate(parts):
            if type(part) is Alloc:
                self._take(run, part, depth, event, places.picked_up.get(index))
            elif type(part) is Free:
                self._give(run, part, event, places.laid_down.get(index))
            else:
                _finish(run, steps)
                run = Straight()
                if isinstance(part, Repeat):
                    loop = self._loop(part, depth, event, places.repeats.get(index, 0))
                    steps.append(loop)
                    event += loop.events * part.times - 1
                else:
                    steps.append(Begin(part.phase) if isinstance(part, Enter) else Emptied(event))
            event += 1
        _finish(run, steps)
        return tuple(steps), event

    def _take(self, run: Straight, part: Alloc, depth: int, event: int, handed: int | None) -> None:
        block, raw, component, _ = part
        size = block_size(raw)
        op = (TAKE_SMALL if size <= SMALL_SIZE else TAKE_LARGE, len(self.requests), depth, size, event)
        index = COMPONENT_INDEX[component]
        self.taken[block] = op, index, raw
        self.requests.append(part)
        if size:
            run.ops.append(op if handed is None else (PICK_UP, op[1], handed, size, event))
            run.moves.append((index, raw))

    def _give(self, run: Straight, part: Free, event: int, handed: int | None) -> None:
        (kind, number, depth, size, _), index, raw = self.taken[part.block]
        if size:
            if number < self._oldest:
                self._oldest = number
            op = (kind + GIVE_SMALL, number, depth, size, event)
            run.ops.append(op if handed is None else (LAY_DOWN, number, handed, size, event))
            run.moves.append((index, -raw))

    def _loop(self, part: Repeat, depth: int, event: int, handed: int) -> Loop:
        first, outside = len(self.requests), self._oldest
        self._oldest = first
        body, events = self.body(part.body, depth + 1, handed)
        closed = self._oldest >= first
        self._oldest = min(outside, self._oldest)
        return Loop(body, max(part.times, 0), part.reverse, events, closed, event)


def _finish(run: Straight, steps: list[Step]) -> None:
    if run.ops:
        end = run.ops[-1][-1] + 1
        run.total = [(i, change) for i, change in enumerate(run.before(end)) if change]
        steps.append(run)
