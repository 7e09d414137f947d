import json
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.errors import UsageError
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.record import (
    Fit,
    Outcome,
    Parameters,
    Prediction,
    Record,
    Verdict,
    load_result,
    result_from_json,
    save_result,
)
from vramplan.scenario_file import scenario_from_mapping

SCENARIO = scenario_from_mapping({"model": {"model_type": "llama", "hidden_size": 64, "_name_or_path": "tiny"}})
LEDGER = Ledger(
    (
        Entry(Phase.LOAD, Component.WEIGHTS, 1000, Basis.EXACT),
        Entry(Phase.LOAD, Component.CONTEXT, 70, Basis.CALIBRATED, "t4, driver 550"),
        Entry(Phase.BACKWARD, Component.WEIGHTS, 1000, Basis.EXACT),
        Entry(Phase.BACKWARD, Component.WORKSPACE, 24, Basis.MODELLED),
        Entry(Phase.BACKWARD, Component.CONTEXT, 70, Basis.CALIBRATED, "t4, driver 550"),
    ),
    steady=1000,
)
PREDICTION = Prediction(
    engine="analytic",
    device="cuda",
    scenario=SCENARIO,
    parameters=Parameters(total=10, quantized=8, trainable=2),
    bits_per_parameter=4.127,
    ledger=LEDGER,
    reserved={Phase.LOAD: 2048, Phase.BACKWARD: 4096},
    libraries={"transformers": "5.17.0"},
    warnings=("one",),
    verdict=Verdict(budget=5000, word=Fit.FITS, margin=834),
)
RECORD = Record(
    engine="measure",
    device="cpu",
    scenario=SCENARIO,
    parameters=PREDICTION.parameters,
    bits_per_parameter=4.127,
    ledger=LEDGER,
    outcome=Outcome.OK,
    environment={"device": "cpu", "python": "3.11.7"},
    timings={"step_ms": 12.5},
)


def test_a_prediction_prints_the_public_object() -> None:
    body = PREDICTION.to_json()
    assert body["peak"] == {"phase": "backward", "allocated": 1024, "reserved": 4096, "device": 4166}  # 4096 + 70
    assert body["phases"] == {
        "load": {"allocated": 1000, "reserved": 2048},
        "backward": {"allocated": 1024, "reserved": 4096},
    }
    assert body["steady"] == {"allocated": 1000}
    assert body["verdict"] == {"budget": 5000, "fits": True, "word": "fits", "margin": 834, "needed": 4166}
    assert (body["schema"], body["kind"], body["engine"]) == (1, "prediction", "analytic")
    assert body["entries"][1]["note"] == "t4, driver 550"


def test_a_tight_run_fits_by_its_margin() -> None:
    fits = Verdict(budget=5000, word=Fit.TIGHT, margin=0)
    assert fits.to_json() == {"budget": 5000, "fits": True, "word": "tight", "margin": 0, "needed": 5000}
    assert not replace(fits, margin=-1).fits


def test_a_verdict_in_a_foreign_word_is_refused() -> None:
    body = PREDICTION.to_json()
    body["verdict"] |= {"word": "perhaps"}
    with pytest.raises(UsageError, match="perhaps"):
        result_from_json(body)


def test_on_a_cpu_what_does_not_exist_is_absent() -> None:
    body = RECORD.to_json()
    assert set(body["peak"]) == {"phase", "allocated"}
    assert "reserved" not in body["phases"]["load"]


@pytest.mark.parametrize("result", [PREDICTION, RECORD], ids=["prediction", "record"])
def test_results_survive_their_file(result: Prediction | Record, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    save_result(result, path)
    assert load_result(path) == result
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_run_that_ended_before_it_measured_has_no_peak(tmp_path: Path) -> None:
    failed = Record(
        engine="measure",
        device="cpu",
        scenario=SCENARIO,
        parameters=PREDICTION.parameters,
        bits_per_parameter=0.0,
        ledger=Ledger((), 0),
        outcome=Outcome.KILLED,
        environment={},
        timings={},
        note="signal 9",
    )
    save_result(failed, tmp_path / "failed.json")
    assert load_result(tmp_path / "failed.json") == failed
    assert "peak" not in failed.to_json()


def test_a_result_is_one_line_in_a_session() -> None:
    said = "of 'tiny-qlora', {}: peak 1.00 KiB in backward"
    assert repr(PREDICTION) == f"<Prediction {said.format('analytic on cuda')}, fits>"
    assert repr(replace(PREDICTION, verdict=None)) == f"<Prediction {said.format('analytic on cuda')}>"
    assert repr(RECORD) == f"<Record {said.format('measure on cpu')}, ok>"
    killed = replace(RECORD, ledger=Ledger((), 0), outcome=Outcome.KILLED)
    assert repr(killed) == "<Record of 'tiny-qlora', measure on cpu: no memory, killed>"


def test_a_failed_write_leaves_neither_the_file_nor_a_piece_of_it(tmp_path: Path) -> None:
    class Unwritable:
        def to_json(self) -> object:
            return {"scenario": object()}

    with pytest.raises(TypeError):
        save_result(Unwritable(), tmp_path / "x.json")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body.pop("entries"),
        lambda body: body.update(schema=99),
        lambda body: body["entries"][0].update(component="weight"),
        lambda body: body.update(scenario={"model": 5}),
        lambda body: body.update(entries=3),
        lambda body: body.update(parameters={"total": 1}),
        lambda body: body["entries"][0].update(bytes="512"),
        lambda body: body["steady"].update(allocated=None),
        lambda body: body["libraries"].update(torch=2),
        lambda body: body.update(libraries=["torch"]),
    ],
)
def test_broken_records_are_refused_by_name(damage: object) -> None:
    body = json.loads(json.dumps(RECORD.to_json()))
    damage(body)  # type: ignore[operator]
    with pytest.raises(UsageError):
        result_from_json(body, source="old.json")


def test_files_that_are_no_records_are_refused(tmp_path: Path) -> None:
    for name, content, named in (
        ("a.json", "{", "not JSON"),
        ("b.json", "[]", "holds a list"),
        ("c.json", "{}", "not a vramplan record"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError, match=named):
            load_result(tmp_path / name)
    with pytest.raises(UsageError, match="cannot read"):
        load_result(tmp_path / "absent.json")
