"""Results as a pandas frame, and that frame as CSV or Parquet."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vramplan.errors import CannotRun, require_installed
from vramplan.ledger import Phase
from vramplan.record import Record
from vramplan.report.report_case import Case, family, stack_name
from vramplan.report.report_facts import Report

if TYPE_CHECKING:
    import pandas

_EXTRA = "pip install 'vramplan[report]'"


def report_frame(report: Report) -> "pandas.DataFrame":
    """One row per result, phase and component that either the result or the closed form's answer to it holds.

    `bytes` is what the result says and `predicted` what the closed form says, missing for predictions. A run that
    ended before anything was measured has one row without phase, component and bytes.
    """
    try:
        import pandas
    except ImportError as error:
        raise CannotRun("tables need pandas, which is not installed", hint=_EXTRA) from error
    frame = pandas.DataFrame([{**_facts(case), **row} for case in report.cases for row in _rows(case)])
    whole = dict.fromkeys(("bytes", "predicted", "allocated", "reserved", "batch", "seq", "rank"), "Int64")
    return frame.astype({**whole, "double": "boolean"})


def csv_bytes(report: Report) -> bytes:
    """The frame as CSV in UTF-8, the columns named in the first line."""
    text: str = report_frame(report).to_csv(index=False, lineterminator="\n")
    return text.encode()


def parquet_bytes(report: Report) -> bytes:
    """The frame as a Parquet file."""
    frame, file = report_frame(report), io.BytesIO()
    require_installed("Parquet", ("pyarrow",), hint=f"{_EXTRA}, or write --csv")
    frame.to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()


def _facts(case: Case) -> dict[str, Any]:
    """What all rows of a result have in common."""
    result = case.result
    scenario = result.scenario
    environment = result.environment if isinstance(result, Record) else {}
    return {
        "source": case.item.source,
        "scenario": scenario.name,
        "kind": "measurement" if case.measured else "prediction",
        "engine": result.engine,
        "device": result.device,
        "gpu": str(environment.get("gpu", scenario.gpu)),
        "date": str(environment.get("date", "")),
        "outcome": case.outcome,
        "model": scenario.model.name,
        "family": family(case),
        "method": scenario.method.value,
        "quant": scenario.quant.type.value,
        "double": scenario.quant.double,
        "rank": scenario.lora.rank,
        "batch": scenario.batch,
        "seq": scenario.seq,
        "optimizer": scenario.optimizer,
        "stack": stack_name(case),
    }


def _rows(case: Case) -> Iterator[dict[str, Any]]:
    result = case.result
    if not result.ledger.entries:
        yield _row(None, "", None, None, "", case)
    if case.comparison is None:
        for entry in result.ledger.entries:
            yield _row(entry.phase, entry.component.value, entry.bytes, None, entry.basis.value, case)
        return
    for row in case.comparison.rows:
        entries = [e for e in result.ledger.of(row.phase) if e.component is row.component]
        basis = entries[0].basis.value if entries else ""
        yield _row(row.phase, row.component.value, row.pair.reference, row.pair.other, basis, case)


def _row(
    phase: Phase | None, component: str, held: int | None, predicted: int | None, basis: str, case: Case
) -> dict[str, Any]:
    ledger = case.result.ledger
    return {
        "phase": phase.value if phase else "",
        "component": component,
        "bytes": held,
        "predicted": predicted,
        "basis": basis,
        "allocated": ledger.allocated(phase) if phase else None,
        "reserved": case.result.reserved.get(phase) if phase else None,
    }
