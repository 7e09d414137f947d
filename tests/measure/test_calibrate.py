"""A calibration is what a measured run says about its card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_phases import TRAINING_PHASES

from vramplan.catalog import gpus
from vramplan.catalog.calibration import Calibration, save_calibration
from vramplan.cli import main
from vramplan.errors import CannotRun
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.measure.calibrate import Recorded, calibration_of, recorded
from vramplan.measure.trace import trace
from vramplan.predict.engine import predict_analytic
from vramplan.record import Outcome, Parameters, Record, save_result
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


def test_a_run_whose_attributed_pass_ended_early_calibrates_nothing() -> None:
    run = record()
    facts = {name: value for name, value in run.environment.items() if name != "workspaces"}
    with pytest.raises(CannotRun, match="did not learn cuBLAS's workspaces"):
        calibration_of(replace(run, environment=facts))


def made_up(context: int, **facts: Any) -> Record:
    """A record that no card gave: for these tests alone."""
    one = record()
    entries = (one.ledger.entries[0], replace(one.ledger.entries[1], bytes=context))
    return replace(one, ledger=Ledger(entries, 0), environment={**one.environment, **facts})


def test_many_records_of_a_card_say_one_thing_together() -> None:
    runs = [
        made_up(500 * MIB),
        made_up(520 * MIB, date="2026-01-03T00:00:00+00:00"),
        made_up(510 * MIB, workspaces=65 * MIB),
        made_up(100 * MIB, gpu="Tesla T4"),
    ]
    assert recorded(runs) == (
        Recorded(
            "h200",
            510 * MIB,
            64 * MIB,
            "driver 580.1, torch 2.11.0, 2026-01-02 to 2026-01-03, median of 3 runs, 500.00 MiB to 520.00 MiB",
        ),
        Recorded("t4", 100 * MIB, 64 * MIB, "driver 580.1, torch 2.11.0, 2026-01-02, 1 run"),
    )


def test_records_that_say_nothing_about_a_context_are_passed_over() -> None:
    inference = Scenario.load("llama-2-7b", method="inference")
    others = [
        record(outcome=Outcome.OOM),
        record(gpu="NVIDIA Nothing"),
        made_up(0),
        made_up(900 * MIB, managed=400 * MIB),  # managed pages are counted with the context
        made_up(500 * MIB, workspaces=None),
        replace(record(), scenario=inference),
        replace(record(), device="cpu"),
        replace(record(), environment={}),
        replace(record(), libraries={}),
    ]
    assert recorded(others) == ()


def test_the_catalogue_is_written_from_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = tmp_path / "gpus.json"
    catalog.write_text((Path(gpus.__file__).parent / "gpus.json").read_text())
    for i, context in enumerate((500, 505)):
        save_result(made_up(context * MIB), tmp_path / "made-up" / f"{i}.json")
    (tmp_path / "made-up" / "notes.json").write_text("{")
    argv = ["calibrate", "--from-records", str(tmp_path / "made-up"), "--catalog", str(catalog)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("h200: context 500.00 MiB, cuBLAS workspaces 64.00 MiB (driver 580.1, torch 2.11.0,")
    assert f'"context": {500 * MIB}' in next(line for line in catalog.read_text().splitlines() if '"h200"' in line)


def test_the_trace_takes_measured_workspaces_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    save_calibration("t4", replace(calibration_of(made_up(0))[1], workspaces=40 * MIB))
    tiny = Scenario.load(str(Path(__file__).parents[2] / "scenarios" / "tiny" / "llama-nf4.yaml"), gpu="t4")
    traced, analytic = trace(tiny), predict_analytic(tiny)
    for phase in TRAINING_PHASES:
        for prediction in (traced, analytic):
            parts = [e for e in prediction.ledger.of(phase) if e.component is Component.WORKSPACE]
            assert [e.bytes for e in parts if e.basis is Basis.CALIBRATED] == [40 * MIB]


def test_a_place_that_cannot_be_written_is_told_before_the_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/nope")
    assert main(["calibrate"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write /proc/nope/vramplan/calibration.json: ")
    assert "hint:  set XDG_CONFIG_HOME" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--from-records", "nowhere"], "nowhere does not exist"),
        (["--from-records", "empty"], "empty has no record"),
        (["--from-records", "broken.json"], "broken.json is not JSON"),
        (["--catalog", "gpus.json"], "--catalog without --from-records"),
    ],
)
def test_asked_wrongly(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    assert main(["calibrate", *argv]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "hint:" in err
