"""What committed records must show: nothing unexplained, static bytes equal, no verdict that was too bold."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import CARD_DOUBLE, STUDIED, limited, report

from vramplan.api import predict
from vramplan.ledger import Basis, Component, Entry, Phase
from vramplan.record import Outcome
from vramplan.report.report_facts import Report
from vramplan.report.report_reading import read_report
from vramplan.report.report_verdicts import false_fits
from vramplan.units import GIB, MIB

RECORDS = Path(__file__).parents[2] / "reports" / "records"
CARDS = sorted(folder for folder in RECORDS.iterdir() if folder.is_dir() and any(folder.glob("*.json")))


def missed(records: Report) -> Iterator[str]:
    """Every target that a record of a card misses."""
    for check in false_fits(records.fits):
        yield f"{check.case.name} was predicted to fit and ran out of memory"
    for miss in records.closed_form:
        ledger, name = miss.case.result.ledger, miss.case.name
        if miss.case.result.device != "cuda":
            continue
        if not miss.static_equal:
            yield f"{name}: static components differ"
        unknown = max(abs(ledger.bytes(phase, Component.UNKNOWN)) for phase in ledger.phases)
        if unknown > 0.01 * ledger.peak:
            yield f"{name}: {unknown} bytes that nobody explains"


def test_what_is_looked_for_is_found() -> None:
    fine = report(limited("above", 8 * GIB, Outcome.OK), limited("below", 6 * GIB, Outcome.OOM), CARD_DOUBLE)
    assert list(missed(fine)) == []
    assert list(missed(STUDIED)) == ["wrong was predicted to fit and ran out of memory"]
    entries = [
        replace(e, bytes=e.bytes + 1) if (e.phase, e.component) == (Phase.STEP, Component.ADAPTERS) else e
        for e in CARD_DOUBLE.ledger.entries
    ]
    # 62 MiB of 6117 + 62 are 1.003 %
    entries.append(Entry(Phase.BACKWARD, Component.UNKNOWN, 62 * MIB, Basis.MEASURED))
    off = replace(CARD_DOUBLE, ledger=replace(CARD_DOUBLE.ledger, entries=tuple(entries)))
    assert list(missed(report(off))) == [
        "7b: static components differ",
        f"7b: {62 * MIB} bytes that nobody explains",
    ]


@pytest.mark.parametrize("folder", CARDS, ids=[folder.name for folder in CARDS])
def test_committed_records_meet_the_targets(folder: Path) -> None:
    read = read_report(
        [folder],
        lambda scenario, device: predict(scenario, device=device),
        lambda scenario, budget: predict(scenario, budget=budget).verdict,
    )
    assert read.records
    assert list(missed(read)) == []
