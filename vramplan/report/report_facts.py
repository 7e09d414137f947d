"""What a report shows: results beside the closed form's answers, errors in groups, studies of pairs of runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import quantiles
from typing import Any

from vramplan.error_table import Summary
from vramplan.report.report_case import Case, Miss, family, stack_name
from vramplan.report.report_json import report_json
from vramplan.report.report_pairs import DoublePair, OptimizerPair
from vramplan.report.report_peaks import PeakGroup
from vramplan.report.report_verdicts import FitCheck

_FEW = 20  # values below which a twentieth of them is not one


@dataclass(frozen=True)
class Group:
    """The errors of the records that have one thing in common."""

    by: str
    """What groups them: `engine`, `device`, `method`, `family`, `stack`."""
    name: str
    errors: tuple[float, ...]
    """Signed relative errors of the allocated peak."""

    @property
    def summary(self) -> Summary:
        """Their magnitudes."""
        return Summary.of(self.errors)


@dataclass(frozen=True)
class Report:
    """Everything that a report shows, in whichever format."""

    cases: tuple[Case, ...]
    misses: tuple[Miss, ...]
    """Of the closed form for every comparable record, and of other engines where their prediction was given too."""
    doubles: tuple[DoublePair, ...]
    optimizers: tuple[OptimizerPair, ...]
    peaks: tuple[PeakGroup, ...]
    fits: tuple[FitCheck, ...]
    """Runs on a card, and what the closed form says about the room that they had."""
    skipped: tuple[str, ...]
    """Files of the directories that hold no result, each with the reason."""

    @cached_property
    def records(self) -> tuple[Case, ...]:
        """The measured ones."""
        return tuple(case for case in self.cases if case.measured)

    @cached_property
    def closed_form(self) -> tuple[Miss, ...]:
        """The errors of the closed form, one per comparable record."""
        return tuple(miss for miss in self.misses if miss.engine == "analytic")

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Errors by engine, and the closed form's by device, method, family and stack; the names in order."""
        found: dict[tuple[str, str], list[float]] = {}
        for miss in self.misses:
            found.setdefault(("engine", miss.engine), []).append(miss.error)
        for by, name in _GROUPS.items():
            for miss in sorted(self.closed_form, key=lambda miss: name(miss.case)):
                found.setdefault((by, name(miss.case)), []).append(miss.error)
        return tuple(Group(*key, tuple(errors)) for key, errors in found.items())

    @property
    def band(self) -> tuple[float, float]:
        """The interval that the closed form's errors lie in, but for the share that `in_band` names."""
        return band([miss.error for miss in self.closed_form])

    @property
    def in_band(self) -> str:
        """How many errors the band holds: `9 in 10`, or `all` when they are few."""
        return "all" if len(self.closed_form) < _FEW else "9 in 10"

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: report`; errors are fractions."""
        return report_json(self)


def band(errors: Sequence[float]) -> tuple[float, float]:
    """The 5 % and 95 % quantiles; with fewer than twenty values the smallest and the largest."""
    if len(errors) < _FEW:
        return min(errors, default=0.0), max(errors, default=0.0)
    cuts = quantiles(errors, n=20, method="inclusive")
    return cuts[0], cuts[-1]


_GROUPS: Mapping[str, Callable[[Case], str]] = {
    "device": lambda case: case.result.device,
    "method": lambda case: case.result.scenario.method.value,
    "family": family,
    "stack": stack_name,
}
