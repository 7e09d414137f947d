"""The profiler's peaks, counted by hand, and against the tracker on a real training step."""

import gc

import pytest
import torch

from vramplan.ledger import Component, Phase
from vramplan.measure.cpu import CpuMeter
from vramplan.measure.profiler import PhaseMarks, profile_peaks
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.run import set_up

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,  # so that the layers decide backward's peak, and not the loss
    "tie_word_embeddings": False,
}


def test_each_phase_has_its_own_peak_above_the_start() -> None:
    def run(marks: PhaseMarks) -> None:
        marks.enter(Phase.FORWARD)
        held = torch.zeros(1024)  # 4 KiB
        marks.enter(Phase.BACKWARD)
        torch.zeros(2048)  # 8 KiB, gone at once
        del held
        marks.enter(Phase.STEP)
        torch.zeros(256)  # 1 KiB

    assert profile_peaks(run) == {Phase.FORWARD: 4096, Phase.BACKWARD: 12288, Phase.STEP: 1024}


@pytest.mark.parametrize(
    "keys",
    [
        {"stack": "script", "checkpointing": False, "attention": "eager", "lora": {"rank": 8, "dropout": 0.1}},
        {"stack": "hf-trainer", "checkpointing": False, "optimizer": "adamw_8bit"},
        {"stack": "hf-trainer", "checkpointing": "reentrant", "grad_accum": 2, "batch": 4, "seq": 128},
    ],
    ids=["eager", "trainer", "reentrant"],
)
def test_tracker_and_profiler_agree_within_one_percent(keys: dict[str, object]) -> None:
    scenario = scenario_from_mapping({"model": LLAMA, "load": "random", "batch": 4, "seq": 64, **keys})
    meter = CpuMeter(vocab=64)
    with meter:
        step = set_up(scenario, torch.device("cpu"), meter)
        step.run()
        step.run()
    gc.collect()

    def again(marks: PhaseMarks) -> None:
        step.meter = marks
        step.run()

    meter.check(again)
    ledger = meter.ledger()
    for phase in (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP):
        assert abs(ledger.bytes(phase, Component.UNKNOWN)) <= 0.01 * ledger.allocated(phase)
