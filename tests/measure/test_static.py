"""What is exact in the closed form is what the real libraries allocate, to the byte, for every tiny scenario."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vramplan.ledger import STATIC_COMPONENTS, Ledger, Phase
from vramplan.measure.cpu import CpuMeter
from vramplan.predict.engine import predict_analytic
from vramplan.record import Parameters
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios
from vramplan.training.counting import bits_per_parameter, count_parameters
from vramplan.training.run import set_up

TINY = sorted(Path(__file__).parents[2].glob("scenarios/tiny/*.yaml"))

#: Small CPU-only tables that bitsandbytes caches per process, and a few scalars: the closed form leaves them out.
TABLES = 512

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")

Real = tuple[Ledger, Parameters, float]


@pytest.fixture(scope="module")
def really() -> Callable[[Scenario], Real]:
    """Two real steps of a scenario: its ledger, its parameters, its bits per parameter; run once per scenario."""
    known: dict[str, Real] = {}

    def run(scenario: Scenario) -> Real:
        if scenario.name not in known:
            vocabulary = scenario.architecture.vocab
            meter = CpuMeter(vocab=vocabulary)
            with meter:
                workload = set_up(scenario, torch.device("cpu"), meter)
                workload.run()
                workload.run()
            model = workload.model
            known[scenario.name] = (meter.ledger(), count_parameters(model), bits_per_parameter(model))
        return known[scenario.name]

    return run


def test_tiny_scenarios_span_families_and_quantisations() -> None:
    scenarios = [read_scenarios(path)[0] for path in TINY]
    assert len(scenarios) >= 14
    assert len({s.architecture.family for s in scenarios}) >= 6
    assert {s.quant.type.value for s in scenarios} == {"nf4", "fp4", "int8", "none"}
    assert {s.quant.double for s in scenarios} == {True, False}
    assert {s.architecture.tied for s in scenarios} == {True, False}
    assert {s.stack.base for s in scenarios} == {"hf-trainer", "script"}
    assert {s.checkpointing.value for s in scenarios} == {"true", "reentrant", "false"}


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_static_components_are_equal_to_the_byte(path: Path, really: Callable[[Scenario], Real]) -> None:
    scenario = read_scenarios(path)[0]
    ledger, _, _ = really(scenario)
    predicted = predict_analytic(scenario, device="cpu").ledger
    last = Phase.STEP if scenario.method.trains else ledger.phases[-1]
    for component in STATIC_COMPONENTS:
        assert predicted.bytes(last, component) == ledger.bytes(last, component), component
    assert 0 <= ledger.steady - predicted.steady <= TABLES


@pytest.mark.parametrize("path", TINY, ids=lambda path: path.stem)
def test_parameters_and_bits_are_equal(path: Path, really: Callable[[Scenario], Real]) -> None:
    scenario = read_scenarios(path)[0]
    _, parameters, bits = really(scenario)
    predicted = predict_analytic(scenario, device="cpu")
    assert predicted.parameters == parameters
    assert predicted.bits_per_parameter == pytest.approx(bits, abs=0.005)
