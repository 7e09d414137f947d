"""What every training loop shares: its model, its phases and its names. Who steps is the subclass's."""

from typing import Any

import torch
from torch import Tensor, nn

from vramplan.ledger import Phase
from vramplan.scenario import Scenario
from vramplan.stacks import LossKernel
from vramplan.training.attention import attention_backend
from vramplan.training.inference import keep_packing
from vramplan.training.liger import install_liger
from vramplan.training.loss import install_loss
from vramplan.training.meter import Meter
from vramplan.training.names import causal_model, name_base, name_gradients, name_optimizer

#: transformers 5.17 TrainingArguments.max_grad_norm.
MAX_GRAD_NORM = 1.0


class TrainingLoop:
    """The loop around one model. `run` is one optimizer step and returns its loss, still on the device.

    Phases are entered as it goes: forward up to the output head's input, loss, backward, step. A subclass makes the
    step (`_step`) and says when its parts begin and end.
    """

    loop = "vramplan"
    """Whose code steps, as a record says it."""
    optimizer: torch.optim.Optimizer

    def __init__(self, model: nn.Module, scenario: Scenario, device: torch.device, meter: Meter) -> None:
        self.model = model
        self.meter = meter
        self.evaluates = True
        """Whether a step is followed by the scenario's evaluation; a step's time is measured without it."""
        self.evaluation_losses: Any = None
        """Of the last evaluation: each sample's loss, or what the Trainer says of them, their mean."""
        self._scenario = scenario
        self._stack = scenario.stack
        self._device = device
        self._before_head = False
        self._first = True
        causal = self._causal = causal_model(model)
        self._vocabulary = len(causal.get_input_embeddings().weight)
        install_loss(causal, scenario.stack, scenario.grad_accum)
        install_liger(causal, scenario.stack)
        if scenario.stack.loss in (LossKernel.TILED, LossKernel.LIGER):  # they call no head
            getattr(causal, causal.base_model_prefix).register_forward_hook(self._enter_loss)
        else:
            causal.get_output_embeddings().register_forward_pre_hook(self._enter_loss)
        if scenario.evaluation is not None:
            keep_packing(model)

    def run(self) -> Tensor:
        """One optimizer step, and the scenario's evaluation after it; the mean loss of its micro-batches."""
        self.meter.enter(Phase.FORWARD)
        with attention_backend(self._scenario.attention):
            loss = self._step()
        if self._first:
            # The first forward of a bitsandbytes layer casts its bias to the input's dtype for good, and moves the row
            # constants of 8-bit weights (bitsandbytes 0.50 nn/modules.py): other storages hold them from now on.
            name_base(self._causal, self.meter)
            self._first = False
        return loss

    def release(self) -> bool:
        """Drop what the loop holds from one step into the next; returns whether it held anything."""
        return False

    def _step(self) -> Tensor:
        """The step itself; the mean loss of its micro-batches."""
        raise NotImplementedError

    def begin_micro_batch(self) -> None:
        """The forward of a micro-batch begins."""
        self.meter.enter(Phase.FORWARD)
        self._before_head = True

    def _enter_loss(self, *_: Any) -> None:
        if self._before_head:  # a chunked loss calls the head again, in backward too
            self._before_head = False
            self.meter.enter(Phase.LOSS)

    def begin_backward(self) -> None:
        """The loss of a micro-batch is there."""
        self._before_head = False
        self.meter.enter(Phase.BACKWARD)

    def end_backward(self) -> None:
        """The gradients of a micro-batch are there."""
        name_gradients(self.model, self.meter)

    def begin_step(self) -> None:
        """All gradients are there."""
        self.meter.enter(Phase.STEP)

    def end_step(self) -> None:
        """The optimizer has stepped: its states are there."""
        name_optimizer(self.optimizer, self.meter)


def loop_facts(workload: object) -> dict[str, Any]:
    """What a record says of who stepped; nothing for workloads that do not train."""
    return {"loop": workload.loop} if isinstance(workload, TrainingLoop) else {}
