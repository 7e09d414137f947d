"""The closed form on published GPU measurements: the headline of the README, held."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def errors(accuracy: ModuleType) -> list[object]:
    return [error for error in accuracy.errors("analytic") if error.fit == "exact"]


@pytest.mark.parametrize(
    ("metric", "mean", "worst"),
    # Between sessions the same configuration itself differs by 0.14 % allocated and 1 to 7 % reserved, once 11.7 %.
    [
        ("train_peak_allocated", 0.15, 0.5),
        ("forward_peak", 0.15, 0.5),
        ("backward_peak", 0.15, 0.5),
        ("step_peak", 0.5, 1.5),
        ("train_peak_reserved", 4.0, 20.0),
    ],
)
def test_predictions_stay_as_near_to_real_gpus_as_the_readme_says(
    accuracy: ModuleType, errors: list[object], metric: str, mean: float, worst: float
) -> None:
    summary = accuracy.summarize([error for error in errors if error.metric == metric])
    assert summary.configurations >= 20
    assert summary.mean <= mean
    assert abs(summary.worst) <= worst
