"""The most that forward and backward of each function of torch hold, against what torch's own profiler hears."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from tests.predict.test_observed import CASES, KINDS, unused_kernel
from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.mode import Observed
from vramplan.ledger import Phase
from vramplan.measure.profiler import PhaseMarks, profile_peaks
from vramplan.predict.backward import run_backward
from vramplan.predict.observed.observer import TapeObserver
from vramplan.predict.tape import FLOAT32, Tape
from vramplan.timeline import Timeline

Peaks = tuple[int, int]

#: What this CPU does otherwise than CUDA: a convolution's layouts, counts of a mask and integer factors made longer.
ON_THE_CPU_ALONE = {"conv1d", "prod", "amax", "largest of all", "times whole numbers"}


def doubled(function: Callable[..., Any], given: list[Any]) -> Any:
    """The function of no leaves, whose gradients are taken in as they are or copied, whoever holds them."""
    return function(*(x * 2 if x.is_floating_point() else x for x in given))


def torchs(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Peaks:
    given = [x.clone().requires_grad_(x.is_floating_point()) for x in arguments]

    def run(marks: PhaseMarks) -> None:
        marks.enter(Phase.FORWARD)
        out = doubled(function, given)
        marks.enter(Phase.LOSS)
        grad = torch.ones_like(out)
        marks.enter(Phase.BACKWARD)
        out.backward(grad)

    peaks = profile_peaks(run)
    return peaks[Phase.FORWARD], peaks[Phase.BACKWARD]


def ours(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Peaks:
    t = Tape("cpu")
    handles = Handles(TapeObserver(t, unused_kernel), padded=False)
    given = [t.new(tuple(x.shape), KINDS[x.dtype], "given") for x in arguments]
    for x in given:
        if x.kind is FLOAT32:
            t.require_grad(x)
    before = sum(x.numel * x.kind.bytes for x in given)
    t.enter(Phase.FORWARD)
    with Observed(handles), torch.device("meta"):
        out = handles.of(doubled(function, [*map(handles.made, given)]))
    t.enter(Phase.LOSS)
    grad = t.new(out.shape, out.kind, "incoming")
    t.enter(Phase.BACKWARD)
    run_backward(t, out, grad)
    ledger = Timeline(t.script.template(1, 1).parts(1, 1)).ledger({})
    return ledger.allocated(Phase.FORWARD) - before, ledger.allocated(Phase.BACKWARD) - before


@pytest.mark.parametrize("name", sorted(set(CASES) - ON_THE_CPU_ALONE))
def test_peaks_are_torchs(name: str) -> None:
    # every tensor of the cases has at least 1 KiB; below are numbers of rows, and what has no dimensions
    assert ours(*CASES[name]) == pytest.approx(torchs(*CASES[name]), abs=256)
