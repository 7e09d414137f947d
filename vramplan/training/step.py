"""One optimizer step with all its micro-batches, as transformers' Trainer or a tutorial's script runs it."""

import inspect
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from accelerate.utils import memory
from torch import Tensor, nn

from vramplan.scenario import Scenario
from vramplan.stacks import Outputs
from vramplan.training.batch import Batch, make_batches, make_evaluation_batch
from vramplan.training.evaluation import EvaluationLoop
from vramplan.training.loop import MAX_GRAD_NORM, TrainingLoop
from vramplan.training.meter import Meter
from vramplan.training.names import causal_model
from vramplan.training.scaling import Scaling


class TrainingStep(TrainingLoop):
    """Our own loop, as transformers' Trainer steps or as a tutorial's script does: what a trace runs.

    A record runs the Trainer itself where it can (`trainer_step.TrainerStep`).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scenario: Scenario,
        device: torch.device,
        meter: Meter,
        *,
        foreach: bool | None = None,
    ) -> None:
        # batches of preference training have no labels to count (transformers 5.17 trainer.py `get_batch_samples`)
        counted = scenario.stack.trainer and not scenario.stack.prefers
        self._counts_items = counted and accepts_loss_kwargs(causal_model(model))
        self._shifted = shifts_labels(causal_model(model))
        super().__init__(model, scenario, device, meter)
        self.optimizer = optimizer
        self._foreach = foreach
        self._trainer = scenario.stack.trainer
        self._held: Any = None
        self._autocast = _autocast(scenario, device)
        self._scaling = Scaling(device, enabled=scenario.stack.autocast == "float16")
        self._evaluation = self._make_evaluation()
        if self._trainer:
            memory.clear_device_cache(garbage_collection=True)  # trainer.py _inner_training_loop: free_memory
        if self._trainer and self._autocast is not None:
            _wrap_forward(model, self._autocast)
        self._preference = self._make_preference()

    def _step(self) -> Tensor:
        batches = make_batches(self._scenario, self._vocabulary, self._device, self.meter)
        items = self._items(batches)
        total = torch.zeros((), device=self._device)
        for batch in batches:
            total = total + self._micro_batch(batch, items, len(batches))
        self.begin_step()
        self._update()
        if self._stack.outputs is not Outputs.HELD_NEXT:
            self._held = None
        if self._evaluation is not None and self.evaluates:
            self.evaluation_losses = self._evaluation.run(self.model, self.meter)
        return total

    def _make_evaluation(self) -> EvaluationLoop | None:
        settings = self._scenario.evaluation
        if settings is None:
            return None
        ignored = getattr(self._causal.config, "keys_to_ignore_at_inference", ["past_key_values"])

        def batch() -> Batch:
            return make_evaluation_batch(self._scenario, settings.batch, self._vocabulary, self._device)

        return EvaluationLoop(settings, self._evaluated, batch, ignored, empties=self._trainer)

    def _make_preference(self) -> Callable[[Batch], Tensor] | None:
        if not self._stack.prefers:
            return None
        from vramplan.training.preference import PreferenceLoss

        return PreferenceLoss(self.model, self._scenario.checkpointing, self._device)

    def _evaluated(self, batch: Batch) -> Any:
        """The model's outputs on a batch, which `Trainer.compute_loss` returns with the loss."""
        return self._call(batch, self._items([batch]))

    def _items(self, batches: list[Batch]) -> Tensor | None:
        """Target tokens of the batches, where the Trainer hands their number to the model."""
        return count_items(batches, shifted=self._shifted) if self._counts_items else None

    def release(self) -> bool:
        """Drop the outputs that the stack holds into the next step; whether there were any."""
        held, self._held = self._held, None
        return held is not None

    def _micro_batch(self, batch: Batch, items: Tensor | None, micro_batches: int) -> Tensor:
        self.begin_micro_batch()
        if self._stack.outputs is Outputs.HELD:
            self._held = None
        loss = self._loss(batch, items)
        if items is None:
            loss = loss / micro_batches
        self.begin_backward()
        torch.autograd.backward(self._scaling.scale(loss))
        self.end_backward()
        return loss.detach()

    def _loss(self, batch: Batch, items: Tensor | None) -> Tensor:
        """The loss of one micro-batch; the outputs die here unless the stack holds them.

        Trainer.compute_loss returns the loss alone, a script's `outputs` lives on.
        """
        outputs = self._call(batch, items)
        loss: Tensor = outputs["loss"]
        if self._stack.outputs is not Outputs.FREED:
            self._held = outputs
        return loss

    def _call(self, batch: Batch, items: Tensor | None) -> Any:
        if self._preference is not None:
            return {"loss": self._preference(batch)}
        extra = {} if items is None else {"num_items_in_batch": items}
        if self._autocast is not None and not self._trainer:
            with self._autocast:
                return self.model(**batch, **extra)
        return self.model(**batch, **extra)

    def _update(self) -> None:
        """Clip, step, drop the gradients."""
        if self._stack.clip or self._trainer:
            # Without clipping the Trainer still computes the norm, by clipping to infinity (trainer.py _get_grad_norm).
            self._scaling.unscale(self.optimizer)
            limit = MAX_GRAD_NORM if self._stack.clip else float("inf")
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit, foreach=self._foreach)
        self._scaling.step(self.optimizer)
        self.end_step()
        if self._trainer:
            self.model.zero_grad()
        else:
            self.optimizer.zero_grad(set_to_none=True)


def accepts_loss_kwargs(causal: Any) -> bool:
    """Whether the Trainer hands the number of target tokens to the model (trainer.py 5.17, "Model introspection")."""
    if hasattr(causal, "accepts_loss_kwargs"):
        return bool(causal.accepts_loss_kwargs)
    parameters = inspect.signature(causal.forward).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def shifts_labels(causal: Any) -> bool:
    """Whether the Trainer knows the model's loss to shift labels (trainer.py 5.17); GPT-2 has no `loss_type`, so no."""
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

    return LOSS_MAPPING.get(getattr(causal, "loss_type", None)) is ForCausalLMLoss


def count_items(batches: list[Batch], *, shifted: bool) -> Tensor:
    """Target tokens of the whole step, on the device (transformers 5.17 trainer.py `_get_num_items_in_batch`)."""
    labels = [batch["labels"][..., 1:] if shifted else batch["labels"] for batch in batches]
    return torch.stack([part.ne(-100).sum() for part in labels]).sum()


def _autocast(scenario: Scenario, device: torch.device) -> torch.autocast | None:
    name = scenario.stack.autocast
    return torch.autocast(device.type, dtype=getattr(torch, name)) if isinstance(name, str) else None


def _wrap_forward(model: nn.Module, autocast: torch.autocast) -> None:
    """What accelerate 1.15 `Accelerator.prepare_model` does for mixed precision, with its own conversion of outputs.

    16-bit outputs, the logits among them, are copied to fp32 after autocast ends.
    """
    from accelerate.utils.operations import convert_outputs_to_fp32

    forward: Any = model.forward
    model.forward = MethodType(autocast(forward.__func__), model)
    model.forward = MethodType(convert_outputs_to_fp32(model.forward.__func__), model)
