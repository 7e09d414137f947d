"""What a check found: one case per scenario, engine and device, and the answer over all of them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vramplan.check.items import Item, Key
from vramplan.check.limits import Limit
from vramplan.check.sameness import Change
from vramplan.compare import Comparison, Pair, Row
from vramplan.record import SCHEMA


class Status(StrEnum):
    """What became of one case, the worst first."""

    REGRESSED = "regressed"
    VANISHED = "vanished"  # in the baseline, not among the new results
    INCOMPARABLE = "not comparable"  # fields that change memory differ
    IMPROVED = "improved"  # shrank beyond a limit, or runs now where it did not
    MOVED = "moved"  # inside the limits
    NEW = "new"  # not in the baseline
    EQUAL = "equal"


class FindingKind(StrEnum):
    """Why a case is a regression."""

    LIMIT = "limit"  # grew beyond a limit
    OUTCOME = "outcome"  # ran, or fitted, and does not any more
    VANISHED = "vanished"  # a phase, component or counter that is gone from the result
    INCONSISTENT = "inconsistent"  # the file's totals are not the sums of its parts


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason why a case is a regression."""

    kind: FindingKind
    subject: str
    """The quantity: `peak`, `weights in backward`, `outcome`."""
    text: str
    """The whole finding in one sentence."""
    pair: Pair | None = None
    """The quantity in baseline and new result, where it is bytes."""
    culprit: Row | None = None
    """The component and phase behind it, where one is."""


@dataclass(frozen=True)
class Case:
    """One scenario on one engine and device: the baseline's result, the new one, and the difference."""

    key: Key
    status: Status
    baseline: Item | None
    """None for a new scenario."""
    new: Item | None
    """None for a vanished one."""
    comparison: Comparison | None = None
    """None where either side has no memory to compare."""
    findings: tuple[Finding, ...] = ()
    fields: tuple[Change, ...] = ()
    """Fields that change memory and differ."""
    changes: tuple[Change, ...] = ()
    """Versions, and the model's own configuration, that differ."""
    most: Row | None = None
    """The component and phase that moved most."""
    outcome: str = ""
    """How the new run ended, or the verdict on it, where that differs from the baseline or there is no memory."""


@dataclass(frozen=True)
class Check:
    """The gate's answer."""

    cases: tuple[Case, ...]
    """The worst first."""
    limits: tuple[Limit, ...]
    vanished_allowed: bool
    notes: tuple[str, ...] = ()
    """Limits that applied to nothing, results that were left out."""

    @property
    def failed(self) -> tuple[Case, ...]:
        """Cases that are regressions."""
        bad = {Status.REGRESSED} if self.vanished_allowed else {Status.REGRESSED, Status.VANISHED}
        return tuple(case for case in self.cases if case.status in bad)

    @property
    def passed(self) -> bool:
        """Whether every case was compared and none is a regression."""
        return self.code == 0

    @property
    def code(self) -> int:
        """Exit code: 0 passed, 1 a regression, 2 none but something could not be compared."""
        if self.failed:
            return 1
        return 2 if any(case.status is Status.INCOMPARABLE for case in self.cases) else 0

    @property
    def worst(self) -> Case | None:
        """The failed case whose memory grew most; the first failed one when no memory did. None when none failed."""
        return max(self.failed, key=_growth, default=None)

    def count(self, status: Status) -> int:
        """How many cases have the status."""
        return sum(case.status is status for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: check`."""
        return {
            "schema": SCHEMA,
            "kind": "check",
            "passed": self.passed,
            "exit_code": self.code,
            "limits": [str(limit) for limit in self.limits],
            "vanished_allowed": self.vanished_allowed,
            "counts": {status.value: self.count(status) for status in Status},
            "worst": None if self.worst is None else self.worst.key._asdict(),
            "cases": [_case_json(case) for case in self.cases],
            "notes": list(self.notes),
        }


def _growth(case: Case) -> int:
    return max((finding.pair.difference for finding in case.findings if finding.pair), default=0)


def _case_json(case: Case) -> dict[str, Any]:
    body = case.key._asdict() | {
        "status": case.status.value,
        "baseline": case.baseline.source if case.baseline else None,
        "new": case.new.source if case.new else None,
        "findings": [_finding_json(finding) for finding in case.findings],
        "different_fields": [change.to_json() for change in case.fields],
        "changes": [change.to_json() for change in case.changes],
        "moved_most": row_json(case.most) if case.most else None,
    }
    if case.outcome:
        body["outcome"] = case.outcome
    if case.comparison:
        body["peak"] = pair_json(case.comparison.peak)
        body["steady"] = pair_json(case.comparison.steady)
    return body


def _finding_json(finding: Finding) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": finding.kind.value, "subject": finding.subject, "text": finding.text}
    if finding.pair:
        body |= pair_json(finding.pair)
    return body | ({"culprit": row_json(finding.culprit)} if finding.culprit else {})


def row_json(row: Row) -> dict[str, Any]:
    """A component at a phase, in baseline and new result."""
    return {"phase": row.phase.value, "component": row.component.value, **pair_json(row.pair)}


def pair_json(pair: Pair) -> dict[str, Any]:
    """A quantity in baseline and new result; the relative difference is null when the baseline holds nothing."""
    relative = None if pair.relative is None else round(pair.relative, 6)
    return {"baseline": pair.reference, "new": pair.other, "difference": pair.difference, "relative": relative}
