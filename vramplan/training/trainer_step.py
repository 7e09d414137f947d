"""The optimizer step of transformers' own Trainer, one at a time.

`Trainer.train` prepares everything in its own order (it empties the allocator's cache, makes the optimizer, wraps the
model) and comes to its first epoch. There it is stopped, and from then on it is driven epoch by epoch: the data set's
epoch is exactly one optimizer step. So one name of transformers 5.17 that is not public is relied on,
`Trainer._run_epoch`; everything else is overridden or called as its documentation says.
"""

import sys
import tempfile
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from vramplan.errors import CannotRun, first_line
from vramplan.ledger import Phase
from vramplan.scenario import Checkpointing, Evaluation, QuantType, Scenario
from vramplan.stacks import LossKernel, Outputs
from vramplan.training.batch import Rows, make_batches, make_evaluation_batch, name_batch
from vramplan.training.loop import MAX_GRAD_NORM, TrainingLoop
from vramplan.training.meter import Meter, NoMeter
from vramplan.training.optimizers import LEARNING_RATE, creating

#: More optimizer steps than anybody measures: the Trainer wants to know how many there will be.
_STEPS = sys.maxsize // 2
_HOST = torch.device("cpu")


def why_not(scenario: Scenario, device: torch.device) -> str:
    """Why the Trainer cannot run the scenario's stack; nothing where it can."""
    stack = scenario.stack
    if not stack.trainer:
        return f"the stack is {stack.base}"
    if stack.base == "trl" and stack.loss is not LossKernel.TILED:
        return "TRL's SFTTrainer has no loss but its own"
    if stack.base == "trl" and scenario.padding and scenario.batch == 1:
        return "TRL's collator pads no batch of one"
    if stack.outputs is not Outputs.FREED:
        return "the Trainer frees the model's outputs before backward"
    if device.type == "cpu" and stack.autocast == "float16":
        return "accelerate has no float16 on the CPU"  # accelerate 1.15 accelerator.py, "fp16 mixed precision requires"
    return ""


class TrainerStep(TrainingLoop):
    """A loop whose steps are made by `transformers.Trainer`; the load phase ends when it is about to make the first."""

    def __init__(self, model: nn.Module, scenario: Scenario, device: torch.device, meter: Meter) -> None:
        super().__init__(model, scenario, device, meter)
        self.loop = f"transformers.Trainer {version('transformers')}"
        check_trainer()
        if scenario.quant.type is not QuantType.NONE and not hasattr(self._causal, "hf_device_map"):
            self._causal.hf_device_map = {"": device}  # as from_pretrained leaves it: the Trainer moves no such model
        with tempfile.TemporaryDirectory(prefix="vramplan-trainer-") as folder:  # made, and never written to
            self._trainer = self._made(training_settings(scenario, device, folder))
            self._trainer.prepare()
        self.optimizer = self._trainer.optimizer.optimizer

    def _made(self, settings: dict[str, Any]) -> "SteppingTrainer":
        """The Trainer with these settings of TrainingArguments."""
        return SteppingTrainer(
            self,
            model=self.model,
            args=checked_arguments(TrainingArguments, settings),
            train_dataset=self._rows(),
            eval_dataset=self._evaluation_rows(self._scenario.evaluation),
            compute_metrics=_no_metrics,
        )

    def _step(self) -> Tensor:
        return self._trainer.step()

    def _rows(self) -> Rows:
        """The samples of one optimizer step."""
        rows = self._scenario.sequences * self._scenario.grad_accum
        return Rows(rows, lambda: make_batches(self._scenario, self._vocabulary, _HOST, NoMeter()))

    def _evaluation_rows(self, settings: Evaluation | None) -> Rows | None:
        """The samples of one evaluation: the same batch as often as it is gathered."""
        if settings is None:
            return None
        rows = settings.batch * self._scenario.stack.sequences_per_sample * max(1, settings.accumulate)
        return Rows(rows, lambda: [make_evaluation_batch(self._scenario, settings.batch, self._vocabulary, _HOST)])

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation follows the step that runs."""
        return self.evaluates and self._scenario.evaluation is not None


class SteppingTrainer(Trainer):  # type: ignore[misc]
    """The Trainer, stopped before its first epoch; the overrides say where a phase begins and change nothing else."""

    def __init__(self, loop: TrainerStep, **settings: Any) -> None:
        self.control: Any
        self._loop = loop
        self._epoch: dict[str, Any] = {}
        self._loss: Tensor | None = None
        super().__init__(**settings)
        self.remove_callback(PrinterCallback)  # stdout is the caller's
        self.add_callback(_Marks(loop))

    def prepare(self) -> None:
        """Everything that `train` does before its first epoch."""
        try:
            self.train()
        except _EpochsBegin:
            return
        raise _not_this_version()

    def step(self) -> Tensor:
        """One epoch, as the loop of `_inner_training_loop` runs it; the sum of its losses."""
        self.control = self.callback_handler.on_epoch_begin(self.args, self.state, self.control)
        super()._run_epoch(**self._epoch)
        self._epoch["epoch"] += 1
        loss, self._loss = self._loss, None
        assert loss is not None
        return loss

    def _run_epoch(self, **arguments: Any) -> None:
        if "epoch" not in arguments:
            raise _not_this_version()
        self._epoch = arguments
        raise _EpochsBegin

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; what it refuses cannot run here."""
        with creating(self.args.optim):
            return super().create_optimizer(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, named."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        for batch in batches:
            name_batch(batch, self._loop.meter)
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's forward and backward of one micro-batch; after the last, the step begins."""
        self._loop.begin_micro_batch()
        loss: Tensor = super().training_step(*args, **kwargs)
        self._loop.end_backward()
        self._loss = loss if self._loss is None else self._loss + loss
        if self.accelerator.sync_gradients:
            self._loop.begin_step()
        return loss

    def compute_loss(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's; in training, backward begins after it."""
        loss = super().compute_loss(model, *args, **kwargs)
        if model.training:
            self._loop.begin_backward()
        return loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, in a phase of its own."""
        self._loop.meter.enter(Phase.EVALUATION)
        output = super().evaluation_loop(*args, **kwargs)
        self._loop.evaluation_losses = output.metrics["eval_loss"]
        return output


class _Marks(TrainerCallback):  # type: ignore[misc]
    """Names the optimizer's states when they are there, and asks for the evaluation."""

    def __init__(self, loop: TrainerStep) -> None:
        self._loop = loop

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the optimizer's step, before the gradients are dropped."""
        self._loop.end_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the gradients are dropped."""
        control.should_evaluate = self._loop.evaluating


class _EpochsBegin(Exception):
    """Not an error: `train` has come to its first epoch."""


def training_settings(scenario: Scenario, device: torch.device, folder: str) -> dict[str, Any]:
    """What TrainingArguments are to say of the scenario."""
    stack = scenario.stack
    return {
        "output_dir": folder,
        "per_device_train_batch_size": scenario.batch,
        "gradient_accumulation_steps": scenario.grad_accum,
        "max_steps": _STEPS,
        "train_sampling_strategy": "sequential",
        "optim": scenario.optimizer,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": MAX_GRAD_NORM if stack.clip else 0.0,
        "bf16": stack.autocast == "bfloat16",
        "fp16": stack.autocast == "float16",
        "gradient_checkpointing": scenario.checkpointing is not Checkpointing.OFF,
        "gradient_checkpointing_kwargs": {"use_reentrant": scenario.checkpointing is Checkpointing.REENTRANT},
        # What is left out of a batch follows the signature of the model's forward, which a chunked loss replaces.
        "remove_unused_columns": False,
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type != "cpu",  # torch warns where there is no accelerator
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **_evaluation_settings(scenario.evaluation),
    }


def checked_arguments(kind: type[TrainingArguments], settings: dict[str, Any]) -> TrainingArguments:
    """The arguments of that kind; CannotRun where the device does not do what they ask for."""
    try:
        made = kind(**settings)
    except ValueError as error:  # bfloat16 on a card without it, among others
        raise CannotRun(f"the Trainer refuses: {first_line(error)}", hint="compute in float16") from error
    if made.n_gpu > 1:
        raise CannotRun(
            f"{made.n_gpu} GPUs are visible, and the Trainer would use them all", hint="set CUDA_VISIBLE_DEVICES=0"
        )
    return made


def _evaluation_settings(settings: Evaluation | None) -> dict[str, Any]:
    """Whether an evaluation runs is said step by step (`_Marks`), not by a strategy."""
    if settings is None:
        return {}
    return {
        "per_device_eval_batch_size": settings.batch,
        "eval_accumulation_steps": settings.accumulate or None,
        "prediction_loss_only": not settings.accumulate,
    }


def _no_metrics(predictions: Any) -> dict[str, float]:
    """Without a function of metrics the Trainer gathers no logits."""
    return {}


def check_trainer() -> None:
    """CannotRun when this version of transformers has a Trainer that cannot be driven epoch by epoch."""
    if not hasattr(Trainer, "_run_epoch"):
        raise _not_this_version()


def _not_this_version() -> CannotRun:
    return CannotRun(
        f"the Trainer of transformers {version('transformers')} cannot be run step by step",
        hint="pip install 'transformers>=5.17,<6'; a prediction needs no Trainer",
    )
