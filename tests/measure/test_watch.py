"""Code that is not ours, watched: exact bytes of steps whose every tensor can be counted by hand."""

import torch
from torch import nn

from vramplan.ledger import Component, Phase
from vramplan.measure.cuda import Counters
from vramplan.measure.profiler import profile_peaks
from vramplan.measure.watch import CpuWatch, CudaWatch
from vramplan.report.usage_text import largest, render_usage


def test_bytes_are_counted_exactly() -> None:
    held = torch.zeros(1000)
    with CpuWatch() as watch:
        first = held + 1  # 4,000 B more
        second = torch.zeros(500)  # 2,000 B more: the peak
        del first
    usage = watch.usage()
    assert (usage.growth, usage.after - usage.before) == (6_000, 2_000)
    assert usage.before >= 4_000
    assert second.numel() == 500


def test_what_was_held_before_is_no_growth_when_it_is_changed_in_place() -> None:
    held = torch.zeros(1000)
    with CpuWatch() as watch:
        held.add_(1)
    assert watch.usage().growth == 0


def test_models_without_memory_are_not_held() -> None:
    empty = nn.Linear(1000, 1000, device="meta")
    with CpuWatch() as watch:
        used = torch.zeros(500)
    assert watch.usage().ledger.bytes(Phase.LOAD, Component.WEIGHTS) == 0
    assert (watch.usage().growth, used.numel(), empty.in_features) == (2_000, 500, 1000)


class Step:
    """A model of 64 x 256 and 256 x 64 weights with AdamW and a batch of 32."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.batch = torch.randn(32, 64)

    def __call__(self) -> None:
        self.forward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def forward(self) -> None:
        loss = self.model(self.batch).square().mean()
        loss.backward()
        loss.item()


#: Parameters: 64 x 256 twice as matrices, 256 + 64 as biases; fp32.
MATRICES, BIASES = 2 * 64 * 256 * 4, (256 + 64) * 4


def test_a_step_is_told_by_phase_and_component() -> None:
    step = Step()
    step()
    with CpuWatch() as watch:
        step()
    ledger = watch.usage().ledger
    assert ledger.phases == (Phase.LOAD, Phase.FORWARD, Phase.BACKWARD, Phase.STEP)
    for phase in ledger.phases:
        assert ledger.bytes(phase, Component.WEIGHTS) == MATRICES
        assert ledger.bytes(phase, Component.UNQUANTIZED) == BIASES
        # exp_avg and exp_avg_sq of each parameter, and a step counter of 4 bytes for each of four
        assert ledger.bytes(phase, Component.OPTIMIZER) == 2 * (MATRICES + BIASES) + 4 * 4
    assert ledger.bytes(Phase.STEP, Component.GRADIENTS) == MATRICES + BIASES
    assert ledger.bytes(Phase.FORWARD, Component.GRADIENTS) == 0
    # forward is highest when the ReLU runs: its input and its output, which is kept for backward, 32 x 256 each
    assert ledger.bytes(Phase.FORWARD, Component.ACTIVATIONS) == 32 * 256 * 4
    assert ledger.bytes(Phase.FORWARD, Component.WORKSPACE) == 32 * 256 * 4


def test_what_is_gone_at_the_end_is_named_beside_a_model_that_was_there() -> None:
    before = nn.Linear(8, 8)
    with CpuWatch() as watch:
        Step()()
    del before
    ledger = watch.usage().ledger
    assert ledger.bytes(Phase.STEP, Component.OPTIMIZER) == 2 * (MATRICES + BIASES) + 4 * 4
    assert ledger.bytes(Phase.STEP, Component.GRADIENTS) == MATRICES + BIASES


def test_the_peak_is_the_profilers() -> None:
    step = Step()
    step()
    with CpuWatch() as watch:
        step.forward()
    step.optimizer.zero_grad()
    usage = watch.usage()

    def watched(marks: object) -> None:
        getattr(marks, "enter")(Phase.FORWARD)  # noqa: B009
        step.forward()

    # the profiler counts from what it found; a mode makes the engine add gradients out of place, there is none to add
    assert profile_peaks(watched)[Phase.FORWARD] == usage.growth


def test_the_largest_tensors_have_names() -> None:
    step = Step()
    with CpuWatch() as watch:
        kept = torch.zeros(300, 300)
        step()
    usage = watch.usage()
    assert largest(usage)[0].label == "zeros [300, 300] float32"
    text = render_usage(usage)
    assert "zeros [300, 300] float32" in text
    assert text.splitlines()[0].endswith("; cpu")
    assert kept.numel() == 90_000


class Counting:
    """An allocator whose counters are given."""

    def __init__(self, *answers: Counters) -> None:
        self.answers = list(answers)
        self.resets = 0

    def counters(self) -> Counters:
        return self.answers.pop(0)

    def reset_peaks(self) -> None:
        self.resets += 1


def test_cuda_is_read_from_the_allocators_counters() -> None:
    before = Counters(100, 100, 100, 2**21, 2**21, 0, 0, 100)
    after = Counters(250, 900, 800, 2**21, 3 * 2**21, 0, 0, 250)
    allocator = Counting(before, after)
    with CudaWatch(allocator) as watch:
        pass
    usage = watch.usage()
    assert (usage.before, usage.peak, usage.after, usage.reserved) == (100, 900, 250, 3 * 2**21)
    assert (usage.growth, allocator.resets, usage.ledger.entries) == (800, 1, ())
    assert render_usage(usage) == "900 B at the peak, 6.00 MiB reserved; 100 B before, 250 B after; cuda"
