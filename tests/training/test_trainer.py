"""Our `hf-trainer` loop, which a trace runs, against the real Trainer: the same losses, the same memory."""

from pathlib import Path
from typing import Any

import pytest
from real_trainer import CPU, STEPS, Run, arguments, train
from tiny_models import GPT2, tiny
from training_phases import TRAINING_PHASES

from vramplan.ledger import Phase
from vramplan.measure.cpu import CpuMeter
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep

pytestmark = pytest.mark.usefixtures("tables_are_made")

SCENARIOS: dict[str, dict[str, Any]] = {
    "qlora": {"lora": {"rank": 8}},
    "accumulation": {"lora": {"rank": 8}, "batch": 1, "grad_accum": 3},
    "reentrant": {"checkpointing": "reentrant", "optimizer": "adamw_8bit"},
    "padded": {"padding": True},
    "lora": {"method": "lora", "checkpointing": False},
    "full": {"method": "full", "optimizer": "adafactor"},
    "gpt2": {"model": GPT2, "lora": {"targets": ["c_attn"]}, "optimizer": "lion_32bit"},
}

#: The recipe that tutorials print, on a small model: its own file, read by its own keys.
RECIPE = Path(__file__).parents[2] / "scenarios" / "tiny" / "llama-recipe.yaml"

#: Evaluations: the loss alone, logits of one step and of three gathered, in 16 bits and in the fp32 of autocast.
EVALUATIONS: dict[str, dict[str, Any]] = {
    "loss-alone": {"eval": {"batch": 4}},
    "one-step": {"eval": {"batch": 2, "accumulate": 1}, "stack": {"base": "hf-trainer", "autocast": False}},
    "three-steps": {"eval": {"batch": 3, "accumulate": 3}},
    "16-bit-logits": {"method": "lora", "eval": {"batch": 3, "accumulate": 3}, "stack": {"autocast": False}},
}

#: Bytes by which a phase's peak may differ. The Trainer holds single numbers that our loop does not: its running loss,
#: the loss once more divided by one (accelerate 1.15 `Accelerator.backward`), the norm of the gradients, the loss of
#: the micro-batch before. Our loop holds the sum of its losses, and of an evaluation one loss per sample.
NUMBERS = 64


def ours(scenario: Scenario) -> Run:
    meter = CpuMeter(vocab=int(scenario.model.config["vocab_size"]))
    with meter:
        workload = set_up(scenario, CPU, meter)
        losses = [float(workload.run()) for _ in range(STEPS)]
    assert isinstance(workload, TrainingStep)
    evaluated = 0.0 if scenario.evaluation is None else float(workload.evaluation_losses.mean())
    return Run(losses, meter.ledger(), evaluated)


@pytest.fixture(scope="module", params=EVALUATIONS)
def evaluated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    scenario = tiny(**EVALUATIONS[request.param])
    return ours(scenario), train(scenario, tmp_path_factory.mktemp("evaluation"))


def test_an_evaluation_is_the_trainers(evaluated: tuple[Run, Run]) -> None:
    own, trainer = evaluated
    assert own.losses == pytest.approx(trainer.losses, rel=1e-5)
    assert own.evaluated == pytest.approx(trainer.evaluated, rel=1e-5)
    for phase in TRAINING_PHASES:
        assert own.ledger.allocated(phase) == pytest.approx(trainer.ledger.allocated(phase), abs=NUMBERS), phase
    # the Trainer's loader is one batch ahead of the evaluation: 2 x 8 bytes for each of at most 3 x 64 tokens
    expected = trainer.ledger.allocated(Phase.EVALUATION)
    assert own.ledger.allocated(Phase.EVALUATION) == pytest.approx(expected, abs=2 * 8 * 3 * 64 + NUMBERS)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_the_printed_recipe_trains_and_takes_what_the_trainer_takes(tmp_path: Path) -> None:
    # bfloat16, because accelerate refuses float16 on a CPU; the record of our own loop is in float16
    (scenario,) = read_scenarios(RECIPE, {"seq": 32, "compute_dtype": "bfloat16"})
    assert arguments(scenario, tmp_path).optim == "paged_adamw_8bit"
    own, trainer = ours(scenario), train(scenario, tmp_path)
    assert own.losses == pytest.approx(trainer.losses, rel=0.02)  # each drops out other activations
    for phase in TRAINING_PHASES:
        assert own.ledger.allocated(phase) == pytest.approx(trainer.ledger.allocated(phase), abs=NUMBERS), phase


@pytest.fixture(scope="module", params=SCENARIOS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    scenario = tiny(**SCENARIOS[request.param])
    return ours(scenario), train(scenario, tmp_path_factory.mktemp("trainer"))


def test_losses_are_the_trainers(runs: tuple[Run, Run]) -> None:
    own, trainer = runs
    assert own.losses == pytest.approx(trainer.losses, rel=1e-5)
    assert own.losses[-1] < own.losses[0]


@pytest.mark.parametrize("phase", TRAINING_PHASES)
def test_memory_of_each_phase_is_the_trainers(runs: tuple[Run, Run], phase: Phase) -> None:
    own, trainer = runs
    assert own.ledger.allocated(phase) == pytest.approx(trainer.ledger.allocated(phase), abs=NUMBERS)


def test_steady_memory_is_the_trainers(runs: tuple[Run, Run]) -> None:
    own, trainer = runs
    assert own.ledger.steady == pytest.approx(trainer.ledger.steady, abs=NUMBERS)
