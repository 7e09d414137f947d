"""How long the trace takes: the real libraries on fake tensors."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vramplan.api import predict
from vramplan.record import Device
from vramplan.scenario import Scenario

pytestmark = [
    pytest.mark.reference("torch"),
    pytest.mark.filterwarnings("ignore"),  # the libraries' talk, which the command line does not show either
]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("target", ["llama-nf4", "mixtral-experts"])
def test_a_tiny_scenario(target: str, device: Device, benchmark: BenchmarkFixture) -> None:
    scenario = Scenario.load(f"scenarios/tiny/{target}.yaml")
    found = benchmark.pedantic(lambda: predict(scenario, "trace", device=device), rounds=2)
    assert found.engine == "trace"


def test_a_7b(benchmark: BenchmarkFixture) -> None:
    scenario = Scenario.load("llama-2-7b", batch=4, seq=512)
    found = benchmark.pedantic(lambda: predict(scenario, "trace"), rounds=1, warmup_rounds=0)
    benchmark.extra_info["peak"] = found.ledger.peak
    assert found.ledger.peak > 2**32
