"""Levers: each saving is the difference of two predictions, the biggest first."""

import pytest
from real_models import scenario

from vramplan.predict.changes import CHANGES
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import ledger
from vramplan.predict.levers import levers
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

WASTEFUL = {
    "quant": {"type": "nf4", "double": False},
    "attention": "eager",
    "checkpointing": False,
    "batch": 4,
    "seq": 1024,
    "stack": "script",
}


@pytest.fixture(scope="module")
def wasteful() -> Scenario:
    return Scenario.load("llama-2-7b", **WASTEFUL)


def test_savings_are_predictions_of_the_changed_scenario(wasteful: Scenario) -> None:
    prediction = predict_analytic(wasteful)
    found = levers(prediction, n=20)
    assert len(found) >= 5
    for lever in found:
        changed = scenario_from_mapping(lever.scenario.to_mapping())
        assert lever.saves == ledger(wasteful).peak - ledger(changed).peak > 0
    assert [lever.saves for lever in found] == sorted((lever.saves for lever in found), reverse=True)


def test_the_three_biggest(wasteful: Scenario) -> None:
    prediction = predict_analytic(wasteful)
    assert levers(prediction) == levers(prediction, n=20)[:3]
    assert levers(prediction)[0].label == "gradient checkpointing"


def test_each_waste_is_found(wasteful: Scenario) -> None:
    labels = " / ".join(lever.label for lever in levers(predict_analytic(wasteful), n=20))
    for words in ("double quantisation", "sdpa instead of eager", "gradient checkpointing", "grad_accum"):
        assert words in labels


def test_the_upcast_of_a_large_vocabulary_is_found() -> None:
    wanted = Scenario.load("llama-3-8b", seq=512)
    assert "upcast" in " / ".join(lever.label for lever in levers(predict_analytic(wanted), n=20))


def test_savings_are_of_the_predictions_device() -> None:
    wanted = scenario("llama", batch=2, seq=64, checkpointing=False)
    found = levers(predict_analytic(wanted, device="cpu"))
    assert found
    peak = ledger(wanted, "cpu").peak
    assert [lever.saves for lever in found] == [peak - ledger(lever.scenario, "cpu").peak for lever in found]


def test_a_lever_that_saves_nothing_is_none() -> None:
    # of one token nothing is kept for backward that weighs anything: the peak is the optimizer's step
    wanted = scenario("llama", method="full", seq=1, checkpointing=False)
    assert any(change.name == "checkpointing" and change.variants(wanted) for change in CHANGES)
    labels = [lever.label for lever in levers(predict_analytic(wanted), n=20)]
    assert labels == ["optimizer paged_adamw_8bit instead of adamw_torch"]
