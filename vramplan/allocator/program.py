"""A timeline made ready to be replayed: one flat operation per event, repeats once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from vramplan.allocator.rules import block_size
from vramplan.ledger import Component, Phase
from vramplan.timeline import Alloc, EmptyCache, Enter, Free, Part, Repeat

TAKE, GIVE, LOOP, ENTER, RELEASE = range(5)
ROUND_BITS = 32  # of a block's name, for its number in the program and for each enclosing repeat's round
INDEX = {component: i for i, component in enumerate(Component)}


class Op(NamedTuple):
    """One event. All kinds have one shape, because a loop over plain tuples is what makes the replay fast."""

    kind: int
    block: int = 0
    """number of the block in the program; of the loop for LOOP"""
    depth: int = 0
    """how many repeats enclose the block's allocation"""
    size: int = 0
    """bytes, a multiple of 512"""
    raw: int = 0
    component: int = 0
    event: int = 0
    """how many events of the enclosing body come before"""


@dataclass(frozen=True, slots=True)
class Loop:
    """A repeat."""

    body: "tuple[Op, ...]"
    times: int
    reverse: bool
    events: int
    """events in one round, inner repeats written out"""
    closed: bool
    """a round frees nothing but its own blocks"""


@dataclass(slots=True)
class Program:
    """The operations of a timeline and what they refer to."""

    ops: tuple[Op, ...] = ()
    loops: list[Loop] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    labels: list[Alloc] = field(default_factory=list)


class Compiler:
    """Translates parts; blocks get consecutive numbers, events that move no memory get no operation."""

    def __init__(self) -> None:
        self.program = Program()
        self._taken: dict[int, Op] = {}  # block of the timeline -> the operation that took it
        self._outermost = 0  # the least depth of a block freed since it was last set

    def compile(self, parts: Iterable[Part]) -> Program:
        """The program of a whole timeline."""
        self.program.ops, _ = self._body(parts, 0)
        return self.program

    def _body(self, parts: Iterable[Part], depth: int) -> tuple[tuple[Op, ...], int]:
        ops: list[Op] = []
        event = 0
        for part in parts:
            op, events = self._op(part, depth, event)
            if op is not None:
                ops.append(op)
            event += events
        return tuple(ops), event

    def _op(self, part: Part, depth: int, event: int) -> tuple[Op | None, int]:
        program = self.program
        if isinstance(part, Alloc):
            raw = part.bytes
            op = Op(TAKE, len(program.labels), depth, block_size(raw), raw, INDEX[part.component], event)
            program.labels.append(part)
            self._taken[part.block] = op
            return (op if raw else None), 1
        if isinstance(part, Free):
            taken = self._taken[part.block]
            self._outermost = min(self._outermost, taken.depth)
            return (Op(GIVE, *taken[1:6], event) if taken.raw else None), 1
        if isinstance(part, Repeat):
            return self._loop(part, depth, event)
        if isinstance(part, Enter):
            program.phases.append(part.phase)
            return Op(ENTER, len(program.phases) - 1, event=event), 1
        assert isinstance(part, EmptyCache)
        return Op(RELEASE, event=event), 1

    def _loop(self, part: Repeat, depth: int, event: int) -> tuple[Op, int]:
        outside, self._outermost = self._outermost, depth + 1
        body, events = self._body(part.body, depth + 1)
        closed = self._outermost > depth
        self._outermost = min(outside, self._outermost)
        self.program.loops.append(Loop(body, max(part.times, 0), part.reverse, events, closed))
        return Op(LOOP, len(self.program.loops) - 1, event=event), events * max(part.times, 0)
