"""Fit verdicts against how runs on a card ended: did anything that was predicted to fit run out of memory?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vramplan.errors import VramplanError
from vramplan.predict.overheads import context_of
from vramplan.record import Fit, Outcome, Record, Verdict
from vramplan.report.report_case import Case
from vramplan.scenario import Scenario

#: What the closed form says about a scenario and a budget in bytes.
Judge = Callable[[Scenario, int], Verdict | None]


class Judgement(StrEnum):
    """What became of a verdict."""

    RIGHT = "right"
    FALSE_FIT = "false fit"
    """Predicted `fits`, ran out of memory: what must never happen."""
    CAUTIOUS = "too cautious"
    """Predicted `does not fit`, and ran."""
    OPEN = "either way"
    """Predicted `tight`: inside the engine's error, so that neither ending is a miss."""


@dataclass(frozen=True)
class FitCheck:
    """A run on a card, and what the closed form says about its room."""

    case: Case
    limit: int | None
    """Bytes that the allocator was allowed to reserve; None for the whole card."""
    verdict: Verdict

    @property
    def ran(self) -> bool:
        """Whether the run completed."""
        return self.case.outcome == Outcome.OK

    @property
    def judgement(self) -> Judgement:
        """What became of the verdict."""
        if self.verdict.word is Fit.TIGHT:
            return Judgement.OPEN
        if self.verdict.fits == self.ran:
            return Judgement.RIGHT
        return Judgement.FALSE_FIT if self.verdict.fits else Judgement.CAUTIOUS


def fit_checks(cases: Sequence[Case], judge: Judge) -> Iterator[FitCheck]:
    """Every record of a card that ended by itself, the limited ones first."""
    found = [check for case in cases if (check := _check(case, judge))]
    yield from (check for check in found if check.limit is not None)
    yield from (check for check in found if check.limit is None)


def _check(case: Case, judge: Judge) -> FitCheck | None:
    """None for other results, and where the card's size is unknown or the scenario cannot be predicted."""
    result = case.result
    if not isinstance(result, Record) or result.device != "cuda" or result.outcome not in (Outcome.OK, Outcome.OOM):
        return None
    limit = case.fact("memory_limit")
    try:
        budget = _budget(case, limit)
        verdict = None if budget is None else judge(result.scenario, budget)
    except VramplanError:
        return None
    return None if verdict is None else FitCheck(case, limit, verdict)


def _budget(case: Case, limit: int | None) -> int | None:
    """What the process could hold, context included: a limit is of the allocator alone; else what the card had free."""
    if limit is not None:
        return limit + context_of(case.result.scenario)
    capacity = case.fact("capacity")
    return None if capacity is None else capacity - (case.fact("used_before") or 0)


def false_fits(checks: Sequence[FitCheck]) -> tuple[FitCheck, ...]:
    """The runs that were predicted to fit and ran out of memory."""
    return tuple(check for check in checks if check.judgement is Judgement.FALSE_FIT)
