"""The changes that set one key."""

from plans import small_scenario

from vramplan.predict.changes import CHANGES
from vramplan.predict.engine import predict_analytic
from vramplan.scenario import Scenario

BY_NAME = {change.name: change for change in CHANGES}


def test_expandable_segments_take_less_of_the_card_for_the_same_tensors() -> None:
    change = BY_NAME["expandable-segments"]
    given = Scenario.load("llama-3.1-8b", batch=2, stack="script", gpu="rtx4090")
    (changed,) = change.variants(given)
    before, after = predict_analytic(given), predict_analytic(changed)
    assert after.ledger.peak <= before.ledger.peak
    assert after.peak_on_device < before.peak_on_device
    assert change.variants(changed) == ()


def test_what_gives_the_same_model_comes_before_what_may_not() -> None:
    places = {change.name: place for place, change in enumerate(CHANGES)}
    assert places["micro-batch"] < places["upcast"] < places["four-bit"]


def test_the_first_change_costs_nothing() -> None:
    assert CHANGES[0].cost.startswith("nothing: ")
    assert CHANGES[0].variants(small_scenario()) != ()
