"""TRL's own DPOTrainer driven step by step, against our own loop with its loss, which is what a trace runs."""

from typing import Any

import pytest
from real_trainer import CPU, Run, run_loop
from tiny_models import MIXTRAL, tiny
from training_phases import TRAINING_PHASES
from trl_loops import check_memory

from vramplan.training.meter import NoMeter
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep
from vramplan.training.trl_step import DpoStep

pytestmark = pytest.mark.usefixtures("tables_are_made")

SCENARIOS: dict[str, dict[str, Any]] = {
    "qlora": {},
    "accumulation": {"batch": 1, "grad_accum": 3, "optimizer": "adamw_8bit"},
    "padded": {"padding": True},
    "dropout": {"lora": {"dropout": 0.5}, "checkpointing": "reentrant"},
    "lora": {"method": "lora", "checkpointing": False},
    "saved": {"lora": {"modules_to_save": ["embed_tokens", "lm_head"]}},
    "evaluated": {"eval": {"batch": 2}},
    "experts": {"model": MIXTRAL, "grad_accum": 2, "lora": {"targets": ["q_proj", "v_proj"]}},
}

#: Bytes of the samples, which the trainer wants when it is made: 3 columns x 6 sequences x 64 tokens x 8 at most.
SAMPLES = 9216


@pytest.fixture(scope="module", params=SCENARIOS)
def runs(request: pytest.FixtureRequest) -> tuple[Run, Run]:
    scenario = tiny(stack="trl-dpo", **SCENARIOS[request.param])
    return run_loop(scenario, DpoStep), run_loop(scenario, TrainingStep)


def test_the_losses_are_the_same_and_fall(runs: tuple[Run, Run]) -> None:
    real, own = runs
    assert own.losses == pytest.approx(real.losses, rel=1e-5)
    assert real.losses[0] == pytest.approx(0.6931, rel=5e-3)  # log 2: nothing is preferred yet
    assert real.losses[-1] < real.losses[0]
    assert own.evaluated == pytest.approx(real.evaluated, rel=1e-5)


def test_the_memory_is_the_same(runs: tuple[Run, Run]) -> None:
    # the samples, which come last, decide where in the load phase the peak is
    check_memory(*runs, samples=SAMPLES, compared=TRAINING_PHASES)


def test_a_record_says_who_stepped() -> None:
    workload = set_up(tiny(stack="trl-dpo"), CPU, NoMeter(), real_trainer=True)
    assert isinstance(workload, DpoStep)
    assert workload.loop.startswith("trl.DPOTrainer 1.")
