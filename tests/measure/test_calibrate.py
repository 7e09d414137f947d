"""A calibration is what a measured run says about its card."""

import pytest

from vramplan.catalog.calibration import Calibration
from vramplan.errors import CannotRun
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.measure.calibrate import calibration_of
from vramplan.record import Outcome, Parameters, Record
from vramplan.scenario import Scenario
from vramplan.units import MIB


def record(gpu: str = "NVIDIA H200", outcome: Outcome = Outcome.OK) -> Record:
    entries = (
        Entry(Phase.LOAD, Component.WEIGHTS, MIB, Basis.MEASURED),
        Entry(Phase.LOAD, Component.CONTEXT, 500 * MIB, Basis.MEASURED),
    )
    return Record(
        engine="measure",
        device="cuda",
        scenario=Scenario.load("llama-2-7b"),
        parameters=Parameters(1, 1, 1),
        bits_per_parameter=4.0,
        ledger=Ledger(entries, 0),
        libraries={"torch": "2.11.0"},
        outcome=outcome,
        environment={"gpu": gpu, "driver": "580.1", "date": "2026-01-02T03:04:05+00:00", "workspaces": 64 * MIB},
        timings={},
        note="why",
    )


def test_context_workspaces_and_provenance_come_from_the_record() -> None:
    assert calibration_of(record()) == (
        "h200",
        Calibration(
            gpu="NVIDIA H200",
            context=500 * MIB,
            workspaces=64 * MIB,
            driver="580.1",
            torch="2.11.0",
            date="2026-01-02",
        ),
    )


def test_a_failed_run_and_an_unknown_card_calibrate_nothing() -> None:
    with pytest.raises(CannotRun, match="ended with oom: why"):
        calibration_of(record(outcome=Outcome.OOM))
    with pytest.raises(CannotRun, match="no card 'NVIDIA Nothing'"):
        calibration_of(record(gpu="NVIDIA Nothing"))
