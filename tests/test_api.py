import json
import pydoc
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from samples import ON_CPU, RECORD

import vramplan
from vramplan.ledger import Component, Phase
from vramplan.record import save_result
from vramplan.units import GIB


def test_a_scenario_is_loaded_and_predicted() -> None:
    scenario = vramplan.Scenario.load("llama-2-7b", batch=4, seq=512, gpu="rtx3090")
    prediction = vramplan.predict(scenario)
    assert isinstance(prediction, vramplan.Prediction)
    assert (prediction.engine, prediction.device, prediction.scenario) == ("analytic", "cuda", scenario)
    # 6,476,005,376 weights of 4 bits
    assert prediction.ledger.bytes(Phase.STEP, Component.WEIGHTS) == 3_238_002_688
    assert prediction.verdict is not None
    assert prediction.to_json()["verdict"]["fits"] is True
    with pytest.raises(FrozenInstanceError):
        prediction.engine = "other"  # type: ignore[misc]


def test_the_words_of_a_ledger_are_public() -> None:
    assert (vramplan.Phase, vramplan.Component) == (Phase, Component)


def test_a_budget_stands_for_a_card() -> None:
    scenario = vramplan.Scenario.load("llama-2-7b")
    assert vramplan.predict(scenario).verdict is None
    verdict = vramplan.predict(scenario, budget=GIB).verdict
    assert vramplan.predict(scenario, budget="1GiB", reserve="1MiB").verdict == verdict
    assert verdict is not None
    assert (verdict.budget, verdict.fits, verdict.word) == (GIB, False, "does not fit")


def test_what_was_written_is_loaded(tmp_path: Path) -> None:
    prediction = vramplan.predict(vramplan.Scenario.load("llama-2-7b", gpu="rtx3090"))
    file = tmp_path / "prediction.json"
    file.write_text(json.dumps(prediction.to_json()))
    assert vramplan.load(file) == replace(prediction, bits_per_parameter=round(prediction.bits_per_parameter, 4))
    save_result(RECORD, file)
    assert vramplan.load(str(file)) == RECORD


def test_what_is_no_file_of_one_result_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_text(json.dumps([RECORD.to_json()] * 2))
    wrong: list[tuple[Any, str]] = [
        (file, "holds a list, not an object"),
        ("nowhere.json", "cannot read"),
        (RECORD, "is no file"),
    ]
    for what, words in wrong:
        with pytest.raises(vramplan.VramplanError, match=words) as caught:
            vramplan.load(what)
        assert caught.value.hint


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(vramplan.VramplanError, match="unknown engine 'magic'"):
        vramplan.predict(vramplan.Scenario.load("llama-2-7b"), "magic")  # type: ignore[arg-type]


def test_a_path_is_a_target_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: llama-2-7b\nseq: 64\n")
    assert vramplan.Scenario.load(file).seq == 64


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        ({"scenario": "llama-2-7b"}, "'llama-2-7b' is no Scenario", "Scenario.load('llama-2-7b')"),
        ({"scenario": 7}, "7 is no Scenario", "Scenario.load"),
        ({"device": "cuda:0"}, "unknown device 'cuda:0'", "did you mean 'cuda'?"),  # and not the CPU's memory
        ({"budget": "24"}, "budget: '24' is a number without a unit", "24GiB"),
        ({"budget": 24}, "budget: '24' is a number without a unit", "24GiB"),
        ({"reserve": 2}, "reserve: '2' is a number without a unit", "2GiB"),
        ({"budget": 0}, "budget: 0 is no number of bytes", "int"),
        ({"budget": True}, "budget: True is no number of bytes", "int"),
        ({"reserve": -1}, "reserve: -1 is no number of bytes", "int"),  # a card larger than it is
        ({"reserve": 1.5}, "reserve: 1.5 is no number of bytes", "int"),
    ],
)
def test_what_no_type_checker_saw_is_refused(arguments: dict[str, Any], words: str, hint: str) -> None:
    given = {"scenario": vramplan.Scenario.load("llama-2-7b"), **arguments}
    with pytest.raises(vramplan.VramplanError) as error:
        vramplan.predict(**given)
    assert words in error.value.message
    assert hint in error.value.hint


def test_a_scenario_is_compared_on_the_other_sides_device() -> None:
    scenario = vramplan.Scenario.load("llama-2-7b", seq=64)
    assert vramplan.compare(scenario, RECORD).a.device == "cpu"
    assert vramplan.compare(ON_CPU, scenario).b.device == "cpu"
    comparison = vramplan.compare(scenario, scenario)
    assert isinstance(comparison, vramplan.Comparison)
    assert (comparison.a.device, comparison.equal) == ("cuda", True)


@pytest.mark.parametrize("sides", [("llama-2-7b", RECORD), (RECORD, "llama-2-7b"), ("llama-2-7b", "llama-2-7b")])
def test_a_name_is_no_side_of_a_comparison(sides: tuple[Any, Any]) -> None:
    with pytest.raises(vramplan.VramplanError, match="'llama-2-7b' is no Scenario") as error:
        vramplan.compare(*sides)
    assert error.value.hint == "load it: Scenario.load('llama-2-7b')"


def test_a_scenario_is_compared_on_the_other_sides_release_of_torch() -> None:
    scenario = vramplan.Scenario.load("llama-3.2-1b", seq=64)
    later = vramplan.predict(vramplan.Scenario.load("llama-3.2-1b", seq=64, torch="2.13"))
    assert vramplan.compare(scenario, later).a == vramplan.compare(later, scenario).b == later


def test_help_and_completion_show_the_public_names() -> None:
    assert set(vramplan.__all__) <= set(dir(vramplan))
    shown = pydoc.plain(pydoc.render_doc(vramplan))
    assert all(f"    {name}(" in shown for name in ("predict", "predict_model", "measure", "compare"))


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        vramplan.nothing  # type: ignore[attr-defined]  # noqa: B018
