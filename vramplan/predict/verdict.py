"""Does it fit? The replay capped at the budget answers; the engine's measured error tells how sure that is."""

from typing import NamedTuple

from vramplan.allocator import Replay, replay
from vramplan.predict.overheads import card
from vramplan.record import Verdict
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline


class ErrorInterval(NamedTuple):
    """Measured error of an engine's reserved peak, (predicted - measured) / measured: 5th and 95th percentile."""

    low: float
    high: float
    origin: str
    """What was measured."""


_PUBLIC = (
    "reserved peak of 26 configurations (35 runs) on T4 and RTX 4080, published by fitcheck and can-i-finetune-this; "
)

#: Allocated is known an order better (mean 0.06 %, worst 0.3 % of the analytic engine on the same runs); what the
#: allocator reserves around it depends on the order of a run's first allocations.
ERROR = {
    "analytic": ErrorInterval(-0.065, 0.006, _PUBLIC + "extremes -18.4 % and +14.3 %"),
    "trace": ErrorInterval(-0.060, 0.042, _PUBLIC + "extremes -6.6 % and +15.4 %"),
}


def judge(
    scenario: Scenario,
    timeline: Timeline,
    played: Replay,
    *,
    budget: int | None = None,
    reserve: int = 0,
    engine: str = "analytic",
) -> Verdict | None:
    """Whether the run fits `budget`, or the scenario's card less `reserve`; None without either.

    `played` is the replay without a cap.
    """
    target = card(scenario)
    if budget is None:
        if target is None:
            return None
        budget = target.capacity - reserve
    context = target.context if target else 0
    room = budget - context
    capped = played if played.reserved <= room else replay(timeline.parts, budget=max(room, 0))
    fits = capped.oom is None
    needs = (capped if fits else played).reserved + context
    return Verdict(budget, fits, _word(timeline, played, room, ERROR[engine], fits=fits), budget - needs)


def _word(timeline: Timeline, played: Replay, room: int, error: ErrorInterval, *, fits: bool) -> str:
    """`tight` when an error that the engine has made before would turn the answer.

    The true need is predicted / (1 + error): what fits in room x (1 + low) fits for sure, and what does not fit in
    room x (1 + high) cannot.
    """
    if fits:
        return "fits" if _fits(timeline, played, int(room * (1 + error.low))) else "tight"
    return "tight" if _fits(timeline, played, int(room * (1 + error.high))) else "does not fit"


def _fits(timeline: Timeline, played: Replay, room: int) -> bool:
    return played.reserved <= room or (room > 0 and replay(timeline.parts, budget=room).oom is None)
