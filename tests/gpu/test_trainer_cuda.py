"""The real Trainer on a card takes what our own loop, which a trace runs, takes there."""

import gc
from typing import Any

import pytest
import torch
from tiny_models import LLAMA
from training_phases import TRAINING_PHASES

from vramplan.ledger import Phase
from vramplan.measure.cuda import CudaAllocator, CudaMeter
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.run import set_up
from vramplan.training.trainer_step import TrainerStep

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:inner dimension")]  # bitsandbytes, of small models

#: Bytes asked for by single numbers that one of the two loops holds: see tests/training/test_trainer.py.
NUMBERS = 64


def peaks(keys: dict[str, Any], *, real_trainer: bool) -> tuple[dict[Phase, int], list[float]]:
    """What each phase of a second step asked for above what was held before, and the losses of both."""
    scenario = scenario_from_mapping({"model": LLAMA, "load": "random", "batch": 2, "seq": 64, **keys})
    gc.collect()
    allocator = CudaAllocator()
    allocator.reset_peaks()
    before = allocator.counters().requested_peak
    meter = CudaMeter(allocator)
    workload = set_up(scenario, torch.device("cuda", 0), meter, real_trainer=real_trainer)
    assert isinstance(workload, TrainerStep) is real_trainer
    losses = [float(workload.run())]
    gc.collect()
    meter.forget_steps()
    losses.append(float(workload.run()))
    meter.close()
    return {phase: meter.peaks[phase].requested - before for phase in TRAINING_PHASES}, losses


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"grad_accum": 3, "optimizer": "paged_adamw_8bit"},
        {"compute_dtype": "float16"},
        {"quant": {"type": "int8"}},
        {"method": "lora", "padding": True, "checkpointing": False},
        {"method": "full", "checkpointing": "reentrant"},
    ],
    ids=str,
)
def test_the_trainer_takes_what_our_own_loop_takes(keys: dict[str, Any]) -> None:
    peaks(keys, real_trainer=False)  # workspaces and tables that a process makes once
    own, own_losses = peaks(keys, real_trainer=False)
    real, real_losses = peaks(keys, real_trainer=True)
    assert real_losses == pytest.approx(own_losses, rel=1e-3)  # sums on a card come in no fixed order
    for phase in TRAINING_PHASES:
        assert real[phase] == pytest.approx(own[phase], abs=NUMBERS), phase
