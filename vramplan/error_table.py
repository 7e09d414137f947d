"""How far predictions are from measurements: a directory of records, each against the prediction of its scenario."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Self

from vramplan.compare import Comparison, Pair, compare
from vramplan.errors import UsageError
from vramplan.record import SCHEMA, Device, Outcome, Prediction, Record, load_result
from vramplan.scenario import Scenario


@dataclass(frozen=True)
class ErrorRow:
    """How far the prediction of one record's scenario is from the record."""

    name: str
    device: str
    peak: Pair
    """The allocated peaks: measured (reference) and predicted."""
    reserved: Pair | None
    """None where either side reserves nothing (cpu)."""
    static_equal: bool
    """Whether what is held from step to step is equal to the byte (see `Comparison.static_equal`)."""
    worst_phase: float
    """The largest relative error of any phase, as a magnitude."""

    @property
    def error(self) -> float:
        """The signed relative error of the allocated peak."""
        return self.peak.relative or 0.0


@dataclass(frozen=True)
class Summary:
    """Magnitudes of a column of relative errors."""

    mean: float
    median: float
    worst: float

    @classmethod
    def of(cls, errors: Iterable[float]) -> Self:
        """Of signed errors, of which there is one at least."""
        sizes = [abs(error) for error in errors]
        return cls(mean(sizes), median(sizes), max(sizes))

    def to_json(self) -> dict[str, float]:
        """As fractions."""
        return {"mean": round(self.mean, 6), "median": round(self.median, 6), "worst": round(self.worst, 6)}


@dataclass(frozen=True)
class ErrorTable:
    """Predicted against measured over many records."""

    rows: tuple[ErrorRow, ...]
    skipped: tuple[str, ...]
    """Files that gave no row, each with the reason."""

    @property
    def allocated(self) -> Summary:
        """Errors of the allocated peak."""
        return Summary.of(row.error for row in self.rows)

    @property
    def reserved(self) -> Summary | None:
        """Errors of the reserved peak; None when no record has one."""
        errors = [row.reserved.relative or 0.0 for row in self.rows if row.reserved]
        return Summary.of(errors) if errors else None

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: errors`; errors are fractions."""
        summaries = {"allocated": self.allocated, "reserved": self.reserved}
        return {
            "schema": SCHEMA,
            "kind": "errors",
            "rows": [_error_json(row) for row in self.rows],
            "summary": {name: found.to_json() for name, found in summaries.items() if found is not None},
            "skipped": list(self.skipped),
        }


def error_table(directory: Path, predict: Callable[[Scenario, Device], Prediction]) -> ErrorTable:
    """Every record below `directory` against `predict` of its own scenario on its own device."""
    rows: list[ErrorRow] = []
    skipped: list[str] = []
    for path in sorted(directory.rglob("*.json")):
        name = str(path.relative_to(directory))
        try:
            record = load_result(path)
            if not isinstance(record, Record):
                skipped.append(f"{name}: a prediction, not a record")
            elif record.outcome is not Outcome.OK:
                skipped.append(f"{name}: outcome {record.outcome.value}")
            else:
                rows.append(_error_row(compare(predict(record.scenario, record.device), record), name))
        except UsageError as error:
            skipped.append(f"{name}: {error.message.replace(f'{path}: ', '').replace(str(path), 'it')}")
    if not rows:
        reasons = "; ".join(skipped[:3]) or "it holds no .json file"
        raise UsageError(f"no record to compare in '{directory}'", hint=f"{reasons}; `vramplan measure` writes records")
    return ErrorTable(tuple(rows), tuple(skipped))


def _error_row(comparison: Comparison, name: str) -> ErrorRow:
    return ErrorRow(
        name=name.removesuffix(".json"),
        device=comparison.b.device,
        peak=comparison.peak,
        reserved=comparison.reserved,
        static_equal=comparison.static_equal,
        worst_phase=max(abs(total.allocated.relative or 0.0) for total in comparison.totals),
    )


def _error_json(row: ErrorRow) -> dict[str, Any]:
    body: dict[str, Any] = {
        "record": row.name,
        "device": row.device,
        "allocated": miss_json(row.peak),
        "worst_phase": round(row.worst_phase, 6),
        "static_equal": row.static_equal,
    }
    return body | ({"reserved": miss_json(row.reserved)} if row.reserved else {})


def miss_json(pair: Pair) -> dict[str, Any]:
    """What was measured (reference) and predicted, and the relative error as a fraction."""
    error = round(pair.relative or 0.0, 6)
    return {"predicted": pair.other, "measured": pair.reference, "error": error}
