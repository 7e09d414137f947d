import pytest
from plans import held, small_scenario

import vramplan
from vramplan.allocator import replay
from vramplan.ledger import Phase
from vramplan.oom.frames import UNKNOWN
from vramplan.oom.loading import LoadingAim, OtherLoading, Unquantised, loading_of, other_loading
from vramplan.oom.printed import Printed
from vramplan.oom.stack_rules import QUANTISED
from vramplan.plan.limit import Limit
from vramplan.predict.forecast import forecast, ledger
from vramplan.record import Prediction
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import GIB, MIB

RUN = small_scenario(batch=4, seq=512)
LOADED = ledger(RUN).allocated(Phase.LOAD)
#: 8,030,261,248 parameters.
MODEL = "llama-3.1-8b"
IN_16_BITS, IN_32_BITS = Unquantised(16, 8_030_261_248 * 2), Unquantised(32, 8_030_261_248 * 4)


@pytest.mark.parametrize("method", ["qlora", "lora", "full", "inference", "merge"])
def test_loading_reserves_what_it_does_in_the_whole_run(method: str) -> None:
    run = small_scenario(method=method)
    parts = loading_of(forecast(run, "cuda").timeline)
    assert replay(parts).reserved == vramplan.predict(run).reserved[Phase.LOAD]


def test_a_step_that_takes_too_much_is_no_matter_of_loading() -> None:
    assert ledger(RUN).peak > LOADED
    aim = LoadingAim(Limit(held(RUN)), most=LOADED)
    assert aim.allocated(RUN) == LOADED
    assert aim.fits(RUN)
    assert aim.verdict(RUN).needed == vramplan.predict(RUN).reserved[Phase.LOAD]
    assert not LoadingAim(Limit(held(RUN)), most=LOADED - 1).fits(RUN)
    assert not LoadingAim(Limit(LOADED - MIB), most=LOADED).fits(RUN)


def predicted(method: str) -> Prediction:
    return vramplan.predict(scenario_from_mapping({"model": MODEL, "method": method}))


@pytest.mark.parametrize(
    ("method", "observed", "likely"),
    [("qlora", 14.61, IN_16_BITS), ("qlora", 23.0, IN_32_BITS), ("lora", 23.0, IN_32_BITS), ("qlora", 40.0, None)],
)
def test_what_was_held_tells_how_the_model_was_loaded(method: str, observed: float, likely: Unquantised | None) -> None:
    prediction = predicted(method)
    expected = prediction.ledger.allocated(Phase.LOAD)
    found = other_loading(prediction, Printed.exact(int(observed * GIB)), UNKNOWN)
    assert found == OtherLoading(expected, likely)


def test_what_loading_takes_is_no_other_loading() -> None:
    """Nor is what the closed form may be wrong by."""
    prediction = predicted("qlora")
    expected = prediction.ledger.allocated(Phase.LOAD)
    assert other_loading(prediction, Printed.exact(expected), UNKNOWN) is None
    assert other_loading(prediction, Printed.exact(expected * 104 // 100), UNKNOWN) is None
    assert other_loading(prediction, Printed.exact(expected * 106 // 100), UNKNOWN) is not None


def test_a_model_that_is_being_quantised_was_not_loaded_in_16_bits() -> None:
    found = other_loading(predicted("qlora"), Printed.exact(14 * GIB), QUANTISED)
    assert found is not None
    assert found.likely is None
