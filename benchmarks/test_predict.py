"""How long predictions take: `make bench`. Every round asks for another scenario, as a sweep does."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count, product

import pytest
from msgspec.structs import replace
from pytest_benchmark.fixture import BenchmarkFixture

from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import ledger
from vramplan.predict.levers import levers
from vramplan.scenario import Scenario

Traced = Callable[[Callable[[], object]], None]
MODELS = ("llama-2-7b", "llama-3.1-70b", "llama-3.1-405b")


def fresh(model: str) -> Iterator[Scenario]:
    """The scenario with one token more every time: never asked for before, of the same structure."""
    scenario = Scenario.load(model, batch=2, seq=2048, gpu="h100-80gb")
    return (replace(scenario, seq=2048 + extra) for extra in count())


@pytest.mark.parametrize("model", MODELS)
def test_ledger(model: str, benchmark: BenchmarkFixture, traced: Traced) -> None:
    """Without the replay; the step's structure is known after the first."""
    scenarios = fresh(model)
    traced(lambda: ledger(next(scenarios)))
    assert benchmark(lambda: ledger(next(scenarios))).peak > 0


@pytest.mark.parametrize("model", MODELS)
def test_predict(model: str, benchmark: BenchmarkFixture, traced: Traced) -> None:
    """With the replay and the verdict; what loading leaves is known after the first."""
    scenarios = fresh(model)
    traced(lambda: predict_analytic(next(scenarios)))
    assert benchmark(lambda: predict_analytic(next(scenarios))).reserved


def test_a_step_of_sixteen_micro_batches(benchmark: BenchmarkFixture) -> None:
    """Less than three times one: the first, one of those between and the last are replayed."""
    scenarios = (replace(scenario, grad_accum=16) for scenario in fresh("llama-2-7b"))
    assert benchmark(lambda: predict_analytic(next(scenarios))).reserved


def test_levers(benchmark: BenchmarkFixture) -> None:
    """What `predict` shows below its table, structures known."""
    prediction = predict_analytic(next(fresh("llama-2-7b")))
    assert benchmark(lambda: levers(prediction))


def test_a_sweep_of_a_thousand_points(benchmark: BenchmarkFixture) -> None:
    scenario = Scenario.load("llama-2-7b", gpu="h100-80gb")
    grid = [replace(scenario, batch=b, seq=64 * s) for b, s in product(range(1, 26), range(32, 72))]
    found = benchmark.pedantic(lambda: [ledger(point).peak for point in grid], rounds=3)
    assert len(found) == 1000


def test_the_command(benchmark: BenchmarkFixture) -> None:
    """A process of its own, from nothing."""
    command = [sys.executable, "-m", "vramplan", "predict", "llama-2-7b"]
    answer = benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, check=True), rounds=5)
    assert answer.stdout
