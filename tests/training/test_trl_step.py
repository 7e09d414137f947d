"""TRL's own SFTTrainer driven step by step, against our own loop with TRL's head, which is what a trace runs."""

from typing import Any

import pytest
from real_trainer import CPU, Run, run_loop
from tiny_models import MIXTRAL, tiny
from torch import Tensor
from training_phases import TRAINING_PHASES
from trl_loops import check_memory

from vramplan.ledger import Phase
from vramplan.training.meter import NoMeter
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep
from vramplan.training.trl_step import TrlStep

pytestmark = pytest.mark.usefixtures("tables_are_made")

SCENARIOS: dict[str, dict[str, Any]] = {
    "qlora": {},
    "accumulation": {"batch": 1, "grad_accum": 3, "optimizer": "adamw_8bit"},
    "padded": {"padding": True},
    "int8": {"quant": {"type": "int8"}, "checkpointing": "reentrant"},
    "lora": {"method": "lora", "checkpointing": False},
    "full": {"method": "full"},
    "evaluated": {"eval": {"batch": 2}},
    "experts": {"model": MIXTRAL, "grad_accum": 2, "lora": {"targets": ["q_proj", "v_proj"]}},
}

#: Bytes of the samples, which the trainer wants when it is made: 3 columns x 3 samples x 64 tokens x 8 at most.
SAMPLES = 4608


@pytest.fixture(scope="module", params=SCENARIOS)
def runs(request: pytest.FixtureRequest) -> tuple[Run, Run]:
    scenario = tiny(stack="trl", **SCENARIOS[request.param])
    return run_loop(scenario, TrlStep), run_loop(scenario, TrainingStep)


def test_the_losses_are_the_same_and_fall(runs: tuple[Run, Run]) -> None:
    real, own = runs
    assert own.losses == pytest.approx(real.losses, rel=1e-5)
    assert real.losses[-1] < real.losses[0]
    assert own.evaluated == pytest.approx(real.evaluated, rel=1e-5)


def test_the_memory_is_the_same(runs: tuple[Run, Run]) -> None:
    check_memory(*runs, samples=SAMPLES, compared=(Phase.LOAD, *TRAINING_PHASES))


def test_the_adapters_of_a_quantised_model_are_16_bit() -> None:
    workload = set_up(tiny(stack="trl"), CPU, NoMeter(), real_trainer=True)
    trained = [parameter for parameter in workload.model.parameters() if parameter.requires_grad]
    assert {str(parameter.dtype) for parameter in trained} == {"torch.bfloat16"}


def test_a_record_says_who_stepped() -> None:
    workload = set_up(tiny(stack="trl"), CPU, NoMeter(), real_trainer=True)
    assert isinstance(workload, TrlStep)
    assert workload.loop.startswith("trl.SFTTrainer 1.")
    assert isinstance(workload.run(), Tensor)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"stack": {"base": "trl", "loss": "torch"}}, "no loss but its own"),
        ({"stack": "trl", "padding": True, "batch": 1}, "pads no batch of one"),
    ],
)
def test_what_the_trainer_cannot_do_our_own_loop_runs(keys: dict[str, Any], reason: str) -> None:
    workload = set_up(tiny(**keys), CPU, NoMeter(), real_trainer=True)
    assert isinstance(workload, TrainingStep)
    assert reason in workload.loop
