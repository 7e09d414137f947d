"""Evaluation inside training: the loop of transformers' Trainer, with its own containers, around our forward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vramplan.ledger import Phase
from vramplan.scenario import Evaluation
from vramplan.training.batch import Batch
from vramplan.training.meter import Meter


class EvaluationLoop:
    """transformers 5.17 `Trainer.evaluation_loop` on one device, up to the moment when what was gathered is moved.

    `forward` is the training step's own, which under the Trainer is accelerate's wrapped one; `batches` makes the next
    batch; `ignored` are keys of the outputs that are never gathered. `empties`: the cache goes when they have been
    moved, as in the Trainer.
    """

    def __init__(
        self,
        settings: Evaluation,
        forward: Callable[[Batch], Any],
        batches: Callable[[], Batch],
        ignored: list[str],
        *,
        empties: bool,
    ) -> None:
        self._settings = settings
        self._forward = forward
        self._batches = batches
        self._ignored = {*ignored, "loss"}
        self._empties = empties

    def run(self, model: Any, meter: Meter) -> Any:
        """The losses of the evaluation's samples, as an array; the model is in training mode again afterwards."""
        from transformers.trainer_pt_utils import EvalLoopContainer

        meter.enter(Phase.EVALUATION)
        model.eval()
        containers = [EvalLoopContainer(padding_index=-100) for _ in range(3)]
        # The first assignment of each step drops what the step before returned, when its own has been made.
        losses = logits = labels = None
        for _ in range(max(1, self._settings.accumulate)):
            losses, logits, labels = self._step()
            losses = losses.repeat(self._settings.batch)
            for container, tensors in zip(containers, (losses, logits, labels), strict=True):
                if tensors is not None:
                    container.add(tensors)
        found = [container.get_arrays() for container in containers]
        del losses, logits, labels
        if self._settings.accumulate and self._empties:
            torch.cuda.empty_cache()
        model.train()
        return found[0]

    @torch.no_grad()
    def _step(self) -> tuple[Tensor, Any, Tensor | None]:
        """`Trainer.prediction_step`: the loss, and the logits and labels unless only the loss is looked at."""
        from transformers.trainer_pt_utils import nested_detach

        batch = self._batches()
        outputs = self._forward(batch)
        loss = outputs["loss"].detach().mean()
        logits = tuple(value for key, value in outputs.items() if key not in self._ignored)
        if not self._settings.accumulate:
            return loss, None, None
        logits = nested_detach(logits)
        return loss, logits[0] if len(logits) == 1 else logits, batch["labels"].detach()
