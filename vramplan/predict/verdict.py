"""Does it fit? The replay capped at the budget answers; the engine's measured error tells how sure that is."""

import json
from pathlib import Path
from typing import NamedTuple

from vramplan import catalog
from vramplan.allocator import Program, Replay, replay
from vramplan.predict.overheads import budget_of, context_of
from vramplan.record import Fit, Verdict
from vramplan.scenario import Scenario


class ErrorInterval(NamedTuple):
    """Between what errors an engine is nine times out of ten, where it was held against real GPUs.

    The error is (predicted - measured) / measured of the number that a verdict compares with a budget: what the
    process holds on the device, allocator and context; where a measurement tells only what the allocator reserved, of
    that. Repeats of a configuration are averaged first; `low` and `high` are the 5th and 95th percentile over
    configurations, linearly interpolated between the nearest two.
    """

    low: float
    high: float
    origin: str
    """What was measured."""


def _intervals(file: Path) -> dict[str, ErrorInterval]:
    """By engine. `make accuracy` writes the file, from the rows of reports/accuracy.json."""
    facts = json.loads(file.read_text(encoding="utf-8"))
    return {engine: ErrorInterval(own["low"], own["high"], own["origin"]) for engine, own in facts.items()}


#: Of each engine. Allocated is known an order better than this; what the allocator reserves around it depends on the
#: order of a run's first allocations.
ERROR = _intervals(Path(catalog.__file__).parent / "engine_errors.json")


def judge(
    scenario: Scenario, program: Program, played: Replay, *, budget: int | None, reserve: int, engine: str
) -> Verdict | None:
    """Whether the run fits `budget`, or the scenario's card less `reserve`; None without either.

    `played` is the program's replay without a cap.
    """
    budget = budget_of(scenario, budget, reserve)
    if budget is None:
        return None
    room = budget - context_of(scenario)
    run = _Run(program, played)
    word, asked = _word(run, room, ERROR[engine])
    return Verdict(budget, word, room - run.held(asked))


def _word(run: "_Run", room: int, error: ErrorInterval) -> tuple[Fit, int]:
    """`tight` when an error that the engine has made before would turn the answer; and the room to tell the need in.

    The true need is predicted / (1 + error): what fits in room x (1 + low) fits for sure, and what does not fit in
    room x (1 + high) cannot. A run that fits in the latter alone needs what it takes there: without a cap it would
    keep segments that it gives back when it has to, and take much more.
    """
    if run.fits(room):
        return (Fit.FITS if run.fits(int(room * (1 + error.low))) else Fit.TIGHT), room
    more = int(room * (1 + error.high))
    return (Fit.TIGHT, more) if run.fits(more) else (Fit.NO, room)


class _Run:
    """A run in rooms of several sizes, replayed only where the replay without a cap leaves it open."""

    def __init__(self, program: Program, played: Replay) -> None:
        self._program = program
        self._played = played
        #: Tensors alone, each in its own whole block: what has to be reserved however well the allocator does.
        self._least = max((mark.moment.raw + mark.moment.rounding for mark in played.marks), default=0)
        self._capped: dict[int, Replay] = {}

    def fits(self, room: int) -> bool:
        """Whether the run completes when no more than `room` bytes can be reserved."""
        if self._played.reserved <= room:
            return True
        return self._least <= room and self._replay(room).oom is None

    def held(self, room: int) -> int:
        """Bytes reserved in that room if the run fits it, else without a cap."""
        if self._played.reserved <= room or not self.fits(room):
            return self._played.reserved
        return self._replay(room).reserved

    def _replay(self, room: int) -> Replay:
        if room not in self._capped:
            self._capped[room] = replay(self._program, budget=room)
        return self._capped[room]
