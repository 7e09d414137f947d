"""The real Trainer driven step by step: what `train` does, what our own loop does, and where it cannot be."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from real_trainer import CPU, Run, run_loop, train
from tiny_models import GPT2, tiny
from torch import Tensor
from training_phases import TRAINING_PHASES
from transformers import Trainer, TrainingArguments

from vramplan.errors import CannotRun
from vramplan.ledger import STATIC_COMPONENTS, Component, Phase
from vramplan.measure.cpu_run import CpuRun
from vramplan.scenario import Scenario
from vramplan.training.meter import Meter, NoMeter
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep
from vramplan.training.trainer_step import TrainerStep

pytestmark = pytest.mark.usefixtures("tables_are_made")

SCENARIOS: dict[str, dict[str, Any]] = {
    "qlora": {},
    "accumulation": {"batch": 1, "grad_accum": 3},
    "reentrant": {"checkpointing": "reentrant", "optimizer": "adamw_8bit"},
    "padded": {"padding": True, "grad_accum": 2},
    "int8": {"quant": {"type": "int8"}},
    "lora": {"method": "lora", "checkpointing": False},
    "full": {"method": "full", "optimizer": "adafactor"},
    "float32": {"method": "lora", "compute_dtype": "float32", "attention": "eager"},
    "16-bit": {"method": "lora", "stack": {"base": "hf-trainer", "autocast": False}},
    "chunked": {"stack": {"base": "hf-trainer", "loss": "chunked"}},
    "counts-no-items": {"model": GPT2, "lora": {"targets": ["c_attn"]}, "grad_accum": 2, "optimizer": "lion_32bit"},
    "evaluation": {"eval": {"batch": 3, "accumulate": 3}},
    "evaluated-loss": {"eval": {"batch": 2}, "grad_accum": 2},
}

#: What the Trainer's memory may differ from our own loop's by: see `test_trainer.NUMBERS`.
NUMBERS = 64


@dataclass
class Diary:
    """A meter that writes down the phases."""

    phases: list[Phase] = field(default_factory=list)

    def enter(self, phase: Phase) -> None:
        self.phases.append(phase)

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        pass


def stepping(meter: Meter, scenario: Scenario) -> TrainerStep:
    workload = set_up(scenario, CPU, meter, real_trainer=True)
    assert isinstance(workload, TrainerStep)
    return workload


@dataclass
class Three:
    """The same scenario stepped by the Trainer, by its `train`, and by our own loop."""

    stepped: Run
    train: Run
    own: Run


@pytest.fixture(scope="module", params=SCENARIOS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Three:
    scenario = tiny(**SCENARIOS[request.param])
    return Three(
        run_loop(scenario, TrainerStep),
        train(scenario, tmp_path_factory.mktemp("trainer")),
        run_loop(scenario, TrainingStep),
    )


def test_a_run_is_a_step_of_train(runs: Three) -> None:
    assert runs.stepped.losses == pytest.approx(runs.train.losses, rel=1e-6)  # sums in fp32 and in Python
    assert runs.stepped.losses[-1] < runs.stepped.losses[0]
    assert runs.stepped.evaluated == runs.train.evaluated


def test_memory_is_what_train_takes(runs: Three) -> None:
    """The last number of a step, its loss, is held by the Trainer; those of several micro-batches are added up here."""
    assert runs.stepped.ledger.phases == runs.train.ledger.phases
    for phase in runs.stepped.ledger.phases[1:]:  # `train` has no mark before its first batch is there
        assert runs.stepped.ledger.allocated(phase) - runs.train.ledger.allocated(phase) in (0, 4), phase
    assert runs.stepped.ledger.steady == runs.train.ledger.steady


def test_our_own_loop_has_the_same_losses(runs: Three) -> None:
    assert runs.own.losses == pytest.approx(runs.stepped.losses, rel=1e-6)
    assert runs.own.evaluated == pytest.approx(runs.stepped.evaluated, rel=1e-6)


def test_our_own_loop_takes_the_same_memory(runs: Three) -> None:
    for phase in (Phase.LOAD, *TRAINING_PHASES):
        expected = runs.stepped.ledger.allocated(phase)
        assert runs.own.ledger.allocated(phase) == pytest.approx(expected, abs=NUMBERS), phase


def test_names_are_given_as_our_own_loop_gives_them(runs: Three) -> None:
    for phase in (Phase.LOAD, *TRAINING_PHASES):
        for component in (*STATIC_COMPONENTS, Component.GRADIENTS, Component.LOGITS):
            expected = runs.own.ledger.bytes(phase, component)
            assert runs.stepped.ledger.bytes(phase, component) == expected, (phase, component)


@pytest.mark.parametrize("keys", [{}, {"grad_accum": 3}, {"stack": {"base": "hf-trainer", "clip": False}}])
def test_phases_are_entered_as_by_our_own_loop(keys: dict[str, Any]) -> None:
    own, real = Diary(), Diary()
    for workload in (set_up(tiny(**keys), CPU, own), stepping(real, tiny(**keys))):
        workload.run()
        workload.run()
    assert real.phases == own.phases


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_written_and_nothing_said(temporary: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workload = stepping(NoMeter(), tiny(eval={"batch": 2}))
    workload.run()
    assert not list(temporary.iterdir())
    assert capfd.readouterr().out == ""


def test_an_evaluation_can_be_left_out() -> None:
    diary = Diary()
    workload = stepping(diary, tiny(eval={"batch": 2}))
    for evaluates in (True, False, True):
        workload.evaluates = evaluates
        workload.run()
    assert diary.phases.count(Phase.EVALUATION) == 2


def test_a_step_leaves_no_gradient_and_holds_nothing() -> None:
    workload = stepping(NoMeter(), tiny())
    workload.run()
    assert all(parameter.grad is None for parameter in workload.model.parameters())
    assert workload.release() is False


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"stack": "script"}, "the stack is script"),
        ({"stack": {"base": "hf-trainer", "outputs": "held"}}, "the Trainer frees the model's outputs before backward"),
        ({"compute_dtype": "float16"}, "accelerate has no float16 on the CPU"),
    ],
)
def test_our_own_loop_runs_where_the_trainer_cannot(keys: dict[str, Any], reason: str) -> None:
    workload = set_up(tiny(**keys), CPU, NoMeter(), real_trainer=True)
    assert isinstance(workload, TrainingStep)
    assert workload.loop == f"vramplan, because {reason}"


def test_another_trainer_cannot_be_driven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Trainer, "_run_epoch")
    with pytest.raises(CannotRun, match="cannot be run step by step") as caught:
        set_up(tiny(), CPU, NoMeter(), real_trainer=True)
    assert "transformers>=5.17" in caught.value.hint


def test_a_trainer_without_epochs_is_not_trained_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_inner_training_loop", lambda self, **arguments: None)
    with pytest.raises(CannotRun, match="cannot be run step by step"):
        set_up(tiny(), CPU, NoMeter(), real_trainer=True)


def test_several_visible_cards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(CannotRun, match="2 GPUs are visible") as caught:
        set_up(tiny(), CPU, NoMeter(), real_trainer=True)
    assert caught.value.hint == "set CUDA_VISIBLE_DEVICES=0"


def test_a_record_says_who_stepped() -> None:
    record = CpuRun(tiny(seq=16), 1, print).record()
    assert record.environment["loop"] == f"transformers.Trainer {record.libraries['transformers']}"
    own = CpuRun(tiny(seq=16, stack="script"), 1, print).record()
    assert own.environment["loop"] == "vramplan, because the stack is script"
