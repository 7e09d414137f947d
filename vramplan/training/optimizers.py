"""The optimizer of a scenario, made by the code of transformers' Trainer."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from vramplan.errors import CannotRun
from vramplan.scenario import Scenario

#: transformers 5.17 TrainingArguments' defaults, except the rate: QLoRA's own for models up to 13B.
LEARNING_RATE = 2e-4
ADAM = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}


def create_optimizer(model: nn.Module, scenario: Scenario, *, foreach: bool | None = None) -> torch.optim.Optimizer:
    """The optimizer with its parameter groups; its states appear in the first step.

    `hf-trainer`: the Trainer's own function, two groups (with and without weight decay). `script`: one group of the
    trainable parameters. `foreach` forces torch's multi-tensor code where the choice would follow the device: on CUDA
    torch takes it by default, on CPU it does not (torch/optim/optimizer.py `_default_to_fused_or_foreach`).

    On CPU, bitsandbytes 0.50.2 has 32-bit and blockwise 8-bit kernels for every optimizer (backends/cpu/ops.py); paged
    optimizers warn and keep ordinary states there (optim/optimizer.py `get_state_buffer`).
    """
    from transformers import Trainer

    arguments = SimpleNamespace(
        optim=_optimizer_name(scenario.optimizer),
        optim_args=None,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        **ADAM,
    )
    with creating(scenario.optimizer):
        chosen, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if foreach is not None and chosen.__module__.startswith("torch.optim") and not options.get("fused"):
        options["foreach"] = foreach
    if scenario.stack.base == "script":
        optimizer: torch.optim.Optimizer = chosen([p for p in model.parameters() if p.requires_grad], **options)
        return optimizer
    return _as_trainer(model, arguments, chosen, options)


@contextmanager
def creating(name: str) -> Iterator[None]:
    """Around the Trainer's choice of an optimizer: what it refuses cannot run here.

    Dropped before is what bitsandbytes' process-wide manager remembers of optimizers made before in this process. The
    Trainer tells it to keep embeddings' states in 32 bits; it remembers them by position in the parameter groups
    (bitsandbytes 0.50 optim/optimizer.py `GlobalOptimManager.index2config`), and would apply them to the next model.
    """
    if "bitsandbytes" in sys.modules:
        from bitsandbytes.optim import GlobalOptimManager

        GlobalOptimManager.get_instance().initialize()
    try:
        yield
    except (ImportError, ValueError) as error:
        raise CannotRun(f"optimizer {name}: {error}", hint="choose another optimizer") from error


def _as_trainer(model: nn.Module, arguments: Any, chosen: Any, options: dict[str, Any]) -> torch.optim.Optimizer:
    """`Trainer.create_optimizer` itself, on an object that has what it reads of the Trainer."""
    from transformers import Trainer

    stand_in: Any = SimpleNamespace(
        model=model,
        optimizer=None,
        args=arguments,
        optimizer_cls_and_kwargs=(chosen, options),
        get_decay_parameter_names=lambda model: Trainer.get_decay_parameter_names(stand_in, model),
    )
    optimizer: torch.optim.Optimizer = Trainer.create_optimizer(stand_in)
    return optimizer


def _optimizer_name(name: str) -> Any:
    """The member of transformers' OptimizerNames; `adamw_8bit` and `adamw_bnb_8bit` are both spellings it has."""
    from transformers.training_args import OptimizerNames

    return OptimizerNames(name)
