"""What the child of a measurement is told by its environment: one card, whatever this process sees; its allocator."""

import pytest

from vramplan.measure.run import _child_environment
from vramplan.scenario import Scenario

RUN = Scenario.load("gpt2")


@pytest.mark.parametrize(
    ("visible", "card"), [(None, "0"), ("0", "0"), ("2,3", "2"), ("GPU-1f2e,GPU-9a8b", "GPU-1f2e")]
)
def test_the_child_sees_the_card_that_a_run_takes(
    visible: str | None, card: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _child_environment(RUN, "cuda")["CUDA_VISIBLE_DEVICES"] == card


def test_on_the_cpu_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert _child_environment(RUN, "cpu")["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_the_allocator_is_set_as_the_scenario_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    expandable = _child_environment(Scenario.load("gpt2", expandable_segments=True), "cuda")
    assert expandable["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:128,expandable_segments:True"
    assert _child_environment(RUN, "cuda")["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:128"
