"""What `transformers.Trainer.train` does with a scenario on the CPU, watched: the reference for both our loops."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from vramplan.ledger import Ledger, Phase
from vramplan.measure.cpu import CpuMeter
from vramplan.scenario import Scenario
from vramplan.training.batch import Rows, make_batches, make_evaluation_batch
from vramplan.training.build import build_model
from vramplan.training.inference import keep_packing
from vramplan.training.loop import TrainingLoop
from vramplan.training.loss import install_loss
from vramplan.training.meter import Meter, NoMeter
from vramplan.training.names import causal_model
from vramplan.training.optimizers import LEARNING_RATE
from vramplan.training.prepare import prepare
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep

CPU = torch.device("cpu")
STEPS = 3


@dataclass
class Run:
    losses: list[float]
    ledger: Ledger
    evaluated: float = 0.0


def run_loop(scenario: Scenario, kind: type[TrainingLoop]) -> Run:
    """Some steps by a trainer's loop, or by our own, watched on the CPU."""
    meter = CpuMeter(vocab=256)
    with meter:
        workload = set_up(scenario, CPU, meter, real_trainer=kind is not TrainingStep)
        losses = [float(workload.run()) for _ in range(STEPS)]
    assert isinstance(workload, kind)
    evaluated = 0.0 if scenario.evaluation is None else float(np.mean(workload.evaluation_losses))
    return Run(losses, meter.ledger(), evaluated)


class WatchedTrainer(Trainer):
    """The real Trainer; the overrides only say where a phase begins and write down each loss."""

    evaluated = 0.0

    def watch(self, meter: Meter) -> None:
        self.meter, self.losses = meter, []
        causal_model(self.model).get_output_embeddings().register_forward_pre_hook(self.enter_loss)

    def enter_loss(self, head: Any, inputs: Any) -> None:
        if head.training and self.before_head:
            self.before_head = False
            self.meter.enter(Phase.LOSS)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.before_head = True
        self.meter.enter(Phase.FORWARD)
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
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
        remove_unused_columns=False,
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


def train(scenario: Scenario, folder: Path) -> Run:
    """One `train` of `STEPS` steps, each an epoch: in a longer one the loader is a batch ahead, on the host."""
    vocabulary = int(scenario.model.config["vocab_size"])
    meter = CpuMeter(vocab=vocabulary)
    with meter:
        model = prepare(build_model(scenario, CPU, meter), scenario, meter)
        install_loss(causal_model(model), scenario.stack)
        keep_packing(model)
        trainer = WatchedTrainer(
            model=model,
            args=arguments(scenario, folder),
            train_dataset=training_rows(scenario, vocabulary),
            eval_dataset=evaluation_rows(scenario, vocabulary),
            compute_metrics=lambda predictions: {},
        )
        trainer.remove_callback(PrinterCallback)
        trainer.watch(meter)
        trainer.train()
    micro = trainer.losses
    steps = [sum(micro[i : i + scenario.grad_accum]) for i in range(0, len(micro), scenario.grad_accum)]
    return Run(steps, meter.ledger(), trainer.evaluated)


def training_rows(scenario: Scenario, vocabulary: int) -> Rows:
    """The rows of our batches, which a sequential sampler takes in their order."""
    samples = scenario.batch * scenario.grad_accum
    return Rows(samples, lambda: make_batches(scenario, vocabulary, CPU, NoMeter()))


def evaluation_rows(scenario: Scenario, vocabulary: int) -> Rows | None:
    settings = scenario.evaluation
    if settings is None:
        return None
    samples = settings.batch * max(1, settings.accumulate)
    return Rows(samples, lambda: [make_evaluation_batch(scenario, settings.batch, vocabulary, CPU)])
