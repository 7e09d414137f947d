"""The verdict: by the replay capped at the budget, and how sure it is."""

import pytest
from plans import small_scenario
from real_models import scenario

from vramplan.allocator import replay
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast
from vramplan.predict.verdict import ERROR
from vramplan.scenario import Scenario
from vramplan.units import GIB, MIB

SEVEN_B = {"batch": 1, "seq": 512}


@pytest.fixture(scope="module")
def need() -> int:
    """Reserved bytes of the 7B without a cap."""
    return replay(forecast(Scenario.load("llama-2-7b", **SEVEN_B), "cuda").timeline.parts).reserved


def verdict(budget: int) -> tuple[bool, str, int]:
    found = predict_analytic(Scenario.load("llama-2-7b", **SEVEN_B), budget=budget).verdict
    assert found is not None
    assert found.budget == budget
    return found.fits, found.word, found.margin


def test_without_card_or_budget_there_is_none() -> None:
    assert predict_analytic(scenario("llama")).verdict is None


def test_plenty_fits(need: int) -> None:
    assert verdict(2 * need) == (True, "fits", need)


def test_far_too_little_does_not_fit(need: int) -> None:
    fits, word, margin = verdict(2 * GIB)
    assert (fits, word) == (False, "does not fit")
    assert margin == 2 * GIB - need


def test_nothing_does_not_fit() -> None:
    assert verdict(0)[0] is False


def test_exactly_enough_is_tight_and_fits(need: int) -> None:
    assert verdict(need) == (True, "tight", 0)


def test_tight_is_the_measured_error(need: int) -> None:
    low = ERROR["analytic"].low
    assert low < 0
    assert verdict(int(need / (1 + low)) + 2 * MIB)[1] == "fits"
    assert ERROR["analytic"].origin


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.93, 0.95, 0.97, 0.99, 1.0, 1.06, 1.2])
def test_the_answer_is_that_of_the_capped_replays(need: int, share: float) -> None:
    run = forecast(Scenario.load("llama-2-7b", **SEVEN_B), "cuda").timeline
    room, error = int(need * share), ERROR["analytic"]
    capped = replay(run.parts, budget=room)
    fits = capped.oom is None
    surely = replay(run.parts, budget=int(room * (1 + (error.low if fits else error.high)))).oom is None
    word = {(True, True): "fits", (False, False): "does not fit"}.get((fits, surely), "tight")
    wider = replay(run.parts, budget=int(room * (1 + error.high)))
    needs = capped if fits else wider if wider.oom is None else None
    assert verdict(room) == (fits, word, room - (needs.reserved if needs else need))


def test_freeing_cached_segments_counts_as_fitting() -> None:
    """Load leaves segments that later phases cannot all use: a capped run frees them."""
    run = forecast(Scenario.load("qwen2.5-1.5b", **SEVEN_B), "cuda").timeline
    free = replay(run.parts)
    capped = replay(run.parts, budget=free.reserved - 2 * MIB)
    found = predict_analytic(Scenario.load("qwen2.5-1.5b", **SEVEN_B), budget=free.reserved - 2 * MIB).verdict
    assert found is not None
    assert found.fits == (capped.oom is None)


def test_what_is_tight_and_does_not_fit_needs_no_more_than_the_error_allows() -> None:
    """Each step of an evaluation gathers more than the last and leaves segments too small for the next: without a cap
    they are kept, and three times as much is reserved as a run needs that gives them back."""
    run = small_scenario(batch=1, seq=256, eval={"batch": 4, "accumulate": 20})
    free = predict_analytic(run)
    uncapped = max(free.reserved.values())
    fails, fits = free.ledger.peak - 1, uncapped
    while fits - fails > 8 * MIB:
        middle = (fails + fits) // 2
        found = predict_analytic(run, budget=middle).verdict
        fails, fits = (fails, middle) if found and found.fits else (middle, fits)
    found = predict_analytic(run, budget=fails).verdict
    assert found is not None
    assert (found.word, found.fits) == ("tight", False)
    assert 0 < -found.margin <= found.budget * ERROR["analytic"].high < (uncapped - found.budget) // 10


def test_the_cards_capacity_less_the_reserve_is_the_budget() -> None:
    whole = predict_analytic(Scenario.load("llama-2-7b", gpu="t4", **SEVEN_B)).verdict
    spared = predict_analytic(Scenario.load("llama-2-7b", gpu="t4", **SEVEN_B), reserve=GIB).verdict
    assert whole is not None
    assert spared is not None
    assert whole.budget - spared.budget == GIB
    assert whole.margin - spared.margin == GIB


def test_the_context_counts(need: int) -> None:
    with_card = predict_analytic(Scenario.load("llama-2-7b", gpu="rtx3090", **SEVEN_B), budget=2 * need)
    assert with_card.verdict is not None
    assert with_card.verdict.margin == 2 * need - max(with_card.reserved.values()) - with_card.context
