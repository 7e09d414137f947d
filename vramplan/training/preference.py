"""Preference training as TRL's DPOTrainer does it: its own code computes the loss, without the trainer around it."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import disable_dropout_in_model

from vramplan.scenario import Checkpointing
from vramplan.training.loss import balancing_weight
from vramplan.training.names import causal_model


class PreferenceLoss(DPOTrainer):  # type: ignore[misc]
    """`DPOTrainer._compute_loss` of a model with adapters, with the defaults of DPOConfig (trl 1.16 dpo_config.py)."""

    def __init__(self, model: Any, checkpointing: Checkpointing, device: torch.device) -> None:
        """A trainer in name only: of its attributes, those that the loss reads."""
        self.model = model
        self.ref_model = None  # the model itself, its adapters switched off
        self.args = SimpleNamespace(
            gradient_checkpointing_kwargs={"use_reentrant": checkpointing is Checkpointing.REENTRANT}
        )
        self.accelerator = _OneProcess(device)
        self.precompute_ref_logps = False
        self.beta = 0.1
        self.loss_types, self.loss_weights = ["sigmoid"], [1.0]
        self.f_divergence_type, self.ld_alpha, self.use_weighting = "reverse_kl", None, False
        self.router_aux_loss_coef = balancing_weight(causal_model(model))
        self.aux_loss_enabled = self.router_aux_loss_coef != 0.0
        self._metrics: dict[str, Any] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._total_train_tokens, self._tp_size = 0, 1
        disable_dropout_in_model(model)

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch of pairs: chosen sequences, then rejected ones."""
        loss: Tensor = self._compute_loss(self.model, batch, return_outputs=False)
        self._metrics["train"].clear()
        return loss


class _OneProcess:
    """What the loss asks of accelerate where there is one process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @staticmethod
    def unwrap_model(model: Any) -> Any:
        """The model: nothing is around it."""
        return model

    @staticmethod
    def gather(tensor: Tensor) -> Tensor:
        """The tensor: nobody has another."""
        return tensor

    gather_for_metrics = gather
