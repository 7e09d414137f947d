"""Our `hf-trainer` loop against the real transformers.Trainer: the same losses, the same memory in every phase."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from vramplan.ledger import TRAINING_PHASES, Ledger, Phase
from vramplan.measure.cpu import CpuMeter
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios, scenario_from_mapping
from vramplan.training.batch import make_batches, make_evaluation_batch
from vramplan.training.build import build_model
from vramplan.training.inference import keep_packing
from vramplan.training.meter import Meter, NoMeter
from vramplan.training.optimizers import LEARNING_RATE
from vramplan.training.prepare import prepare
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep

CPU = torch.device("cpu")
STEPS = 3
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 512}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}

SCENARIOS = {
    "qlora": {"model": LLAMA, "lora": {"rank": 8}, "batch": 2, "seq": 64},
    "accumulation": {"model": LLAMA, "lora": {"rank": 8}, "batch": 1, "seq": 64, "grad_accum": 3},
    "reentrant": {"model": LLAMA, "batch": 2, "seq": 64, "checkpointing": "reentrant", "optimizer": "adamw_8bit"},
    "lora": {"model": LLAMA, "method": "lora", "batch": 2, "seq": 64, "checkpointing": False},
    "full": {"model": LLAMA, "method": "full", "batch": 2, "seq": 64, "optimizer": "adafactor"},
    "gpt2": {"model": GPT2, "lora": {"targets": ["c_attn"]}, "batch": 2, "seq": 64, "optimizer": "lion_32bit"},
}


#: The recipe that tutorials print, on a small model: its own file, read by its own keys.
RECIPE = Path(__file__).parents[2] / "scenarios" / "tiny" / "llama-recipe.yaml"

#: Evaluations: the loss alone, logits of one step and of three gathered, in 16 bits and in the fp32 of autocast.
EVALUATIONS = {
    "loss-alone": {"eval": {"batch": 4}},
    "one-step": {"eval": {"batch": 2, "accumulate": 1}, "stack": {"base": "hf-trainer", "autocast": False}},
    "three-steps": {"eval": {"batch": 3, "accumulate": 3}},
    "16-bit-logits": {"method": "lora", "eval": {"batch": 3, "accumulate": 3}, "stack": {"autocast": False}},
}


@dataclass
class Run:
    losses: list[float]
    ledger: Ledger
    dataset: int
    evaluated: float = 0.0


class Rows(Dataset[dict[str, torch.Tensor]]):
    """The rows of our batches, over and over: the sampler is sequential, so every step sees the same ones."""

    def __init__(self, scenario: Scenario) -> None:
        batches = make_batches(scenario, int(scenario.model.config["vocab_size"]), CPU, NoMeter())
        self.rows = [
            dict(zip(batch, row, strict=True)) for batch in batches for row in zip(*batch.values(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows) * STEPS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index % len(self.rows)]


class EvaluationRows(Dataset[dict[str, torch.Tensor]]):
    """The rows of our evaluation's batch, as often as it is evaluated."""

    def __init__(self, scenario: Scenario) -> None:
        assert scenario.evaluation is not None
        vocabulary, samples = int(scenario.model.config["vocab_size"]), scenario.evaluation.batch
        batch = make_evaluation_batch(scenario, samples, vocabulary, CPU)
        self.rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        self.times = max(1, scenario.evaluation.accumulate)

    def __len__(self) -> int:
        return len(self.rows) * self.times

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index % len(self.rows)]


class WatchedTrainer(Trainer):
    """The real Trainer; the overrides only say where a phase begins and write down each loss."""

    evaluated = 0.0

    def watch(self, meter: Meter) -> None:
        self.meter, self.losses = meter, []
        causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        causal.get_output_embeddings().register_forward_pre_hook(self.enter_loss)

    def enter_loss(self, head: Any, inputs: Any) -> None:
        if head.training:
            self.meter.enter(Phase.LOSS)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.meter.enter(Phase.FORWARD)
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss)
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().compute_loss(*args, **kwargs)
        if self.model.training:
            self.meter.enter(Phase.BACKWARD)
        return loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.meter.enter(Phase.EVALUATION)
        output = super().evaluation_loop(*args, **kwargs)
        self.evaluated = output.metrics["eval_loss"]
        return output

    def _clip_grad_norm(self, model: Any) -> Any:
        self.meter.enter(Phase.STEP)
        return super()._clip_grad_norm(model)


def arguments(scenario: Scenario, folder: Path) -> TrainingArguments:
    checkpointing = scenario.checkpointing.value
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        bf16=scenario.stack.autocast == "bfloat16",
        per_device_train_batch_size=scenario.batch,
        gradient_accumulation_steps=scenario.grad_accum,
        gradient_checkpointing=checkpointing != "false",
        gradient_checkpointing_kwargs={"use_reentrant": checkpointing == "reentrant"},
        optim=scenario.optimizer,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_steps=STEPS,
        train_sampling_strategy="sequential",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **evaluation_arguments(scenario),
    )


def evaluation_arguments(scenario: Scenario) -> dict[str, Any]:
    if scenario.evaluation is None:
        return {}
    return {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "per_device_eval_batch_size": scenario.evaluation.batch,
        "eval_accumulation_steps": scenario.evaluation.accumulate or None,
        "prediction_loss_only": not scenario.evaluation.accumulate,
    }


def theirs(scenario: Scenario, folder: Path) -> Run:
    meter = CpuMeter(vocab=512)
    with meter:
        model = prepare(build_model(scenario, CPU, meter), scenario, meter)
        keep_packing(model)
        trainer = WatchedTrainer(
            model=model,
            args=arguments(scenario, folder),
            train_dataset=Rows(scenario),
            eval_dataset=EvaluationRows(scenario) if scenario.evaluation else None,
            compute_metrics=lambda predictions: {},
        )
        trainer.watch(meter)
        trainer.train()
    micro = [float(loss) for loss in trainer.losses]
    steps = [sum(micro[i : i + scenario.grad_accum]) for i in range(0, len(micro), scenario.grad_accum)]
    return Run(steps, meter.ledger(), dataset_bytes(scenario), trainer.evaluated)


def dataset_bytes(scenario: Scenario) -> int:
    """The Trainer's dataset lies in CPU memory too: tokens and labels, 8 bytes each. Our loop has none."""
    evaluated = scenario.evaluation.batch * scenario.seq if scenario.evaluation else 0
    return 2 * 8 * (scenario.tokens * scenario.grad_accum + evaluated)


def ours(scenario: Scenario) -> Run:
    meter = CpuMeter(vocab=512)
    with meter:
        workload = set_up(scenario, CPU, meter)
        losses = [float(workload.run()) for _ in range(STEPS)]
    assert isinstance(workload, TrainingStep)
    evaluated = 0.0 if scenario.evaluation is None else float(workload.evaluation_losses.mean())
    return Run(losses, meter.ledger(), 0, evaluated)


@pytest.fixture(scope="module", params=EVALUATIONS)
def evaluated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    keys = {"model": LLAMA, "load": "random", "lora": {"rank": 8}, "batch": 2, "seq": 64}
    scenario = scenario_from_mapping({**keys, **EVALUATIONS[request.param]})
    return ours(scenario), theirs(scenario, tmp_path_factory.mktemp("evaluation"))


def test_an_evaluation_is_the_trainers(evaluated: tuple[Run, Run]) -> None:
    own, trainer = evaluated
    assert own.losses == pytest.approx(trainer.losses, rel=1e-5)
    assert own.evaluated == pytest.approx(trainer.evaluated, rel=1e-5)
    for phase in (*TRAINING_PHASES, Phase.EVALUATION):
        expected = trainer.ledger.allocated(phase) - trainer.dataset
        assert own.ledger.allocated(phase) == pytest.approx(expected, rel=0.01), phase


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_the_printed_recipe_trains_and_takes_what_the_trainer_takes(tmp_path: Path) -> None:
    # bfloat16, because accelerate refuses float16 on a CPU; the record of our own loop is in float16
    (scenario,) = read_scenarios(RECIPE, {"seq": 32, "compute_dtype": "bfloat16"})
    assert arguments(scenario, tmp_path).optim == "paged_adamw_8bit"
    own, trainer = ours(scenario), theirs(scenario, tmp_path)
    assert own.losses == pytest.approx(trainer.losses, rel=0.02)  # each drops out other activations
    for phase in TRAINING_PHASES:
        expected = trainer.ledger.allocated(phase) - trainer.dataset
        assert own.ledger.allocated(phase) == pytest.approx(expected, rel=0.01), phase


@pytest.fixture(scope="module", params=SCENARIOS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    scenario = scenario_from_mapping({"load": "random", "name": request.param, **SCENARIOS[request.param]})
    return ours(scenario), theirs(scenario, tmp_path_factory.mktemp("trainer"))


def test_losses_are_the_trainers(runs: tuple[Run, Run]) -> None:
    own, trainer = runs
    assert own.losses == pytest.approx(trainer.losses, rel=1e-5)
    assert own.losses[-1] < own.losses[0]


@pytest.mark.parametrize("phase", TRAINING_PHASES)
def test_memory_of_each_phase_is_the_trainers(runs: tuple[Run, Run], phase: Phase) -> None:
    own, trainer = runs
    assert own.ledger.allocated(phase) == pytest.approx(trainer.ledger.allocated(phase) - trainer.dataset, rel=0.01)


def test_steady_memory_is_the_trainers(runs: tuple[Run, Run]) -> None:
    own, trainer = runs
    assert own.ledger.steady == pytest.approx(trainer.ledger.steady - trainer.dataset, rel=0.01)
