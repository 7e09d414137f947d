"""What a machine without a GPU answers before anything is run."""

import pytest
import torch

from vramplan.errors import CannotRun, UsageError
from vramplan.measure.child import _measured
from vramplan.measure.cuda_machine import start_cuda
from vramplan.measure.messages import Request
from vramplan.measure.run import measure
from vramplan.scenario import Scenario


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch has CUDA")
def test_a_cpu_build_of_torch_says_so() -> None:
    with pytest.raises(CannotRun, match="built without CUDA"):
        start_cuda()


def test_the_child_refuses_without_a_visible_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    scenario = Scenario.load("llama-2-7b").to_mapping()
    with pytest.raises(CannotRun, match="hides every GPU"):
        _measured(Request(scenario, path="", device="cuda", steps=1, memory_limit=None))


def test_a_cpu_has_no_allocator_to_limit() -> None:
    with pytest.raises(UsageError, match="memory limit") as caught:
        measure(Scenario.load("llama-2-7b"), memory_limit=2**30)
    assert caught.value.hint == "measure with --device cuda"
