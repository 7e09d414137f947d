"""What happens to the base model before training: freeze, upcast, checkpointing, adapters."""

import logging
import warnings
from typing import Any

import torch
from torch import nn

from vramplan.errors import UsageError, first_line, nearest
from vramplan.scenario import ALL_LINEAR, Checkpointing, DType, Scenario
from vramplan.stacks import Upcast
from vramplan.training.meter import Meter
from vramplan.training.names import name_adapters, name_base

_LOG = logging.getLogger(__name__)


def prepare(model: Any, scenario: Scenario, meter: Meter) -> nn.Module:
    """The model ready to train, as the scenario's stack prepares it: the base model, or peft's wrapper around it.

    The order is the recipes': peft's preparation, adapters, and then what the Trainer or the script adds. Names are
    given again where a parameter's storage changed.
    """
    upcast(model, scenario.stack.upcast)
    name_base(model, meter)
    trained: nn.Module = attach_adapters(model, scenario) if scenario.method.adapts else model
    name_adapters(trained, meter)
    if not scenario.method.adapts:
        trained.requires_grad_(True)
    enable_checkpointing(trained, scenario.checkpointing)
    trained.train()
    return trained


def upcast(model: Any, which: Upcast) -> None:
    """Cast 16-bit parameters that are not quantised to fp32 by peft's own preparation, which also freezes the model.

    `norms` is what TRL does after it: embeddings and head are cast back. `rest` is axolotl's way, which also casts back
    what has "norm" in its name (0.19.0 loaders/model.py). peft 0.21 empties the allocator's cache here.
    """
    if which is Upcast.NONE:
        return
    from peft import prepare_model_for_kbit_training

    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    loaded = [part.weight.dtype for part in embeddings if part is not None]
    # Checkpointing is switched on below, once, with the kind that the scenario asks for.
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if which is Upcast.ALL:
        return
    for part, dtype in zip((p for p in embeddings if p is not None), loaded, strict=True):
        part.weight.data = part.weight.data.to(dtype)
    if which is Upcast.REST:
        for name, module in model.named_modules():
            if "norm" in name:
                module.to(loaded[0])


def enable_checkpointing(model: Any, checkpointing: Checkpointing) -> None:
    """Checkpoint every decoder layer; also makes the embeddings' output require grad, for either kind.

    transformers 5.17 `gradient_checkpointing_enable`: without kwargs it is non-reentrant, and it always registers
    `enable_input_require_grads`. peft's preparation calls it with empty kwargs, and the Trainer calls it again with its
    own: the last call wins, so each kind is stated here.
    """
    if checkpointing is Checkpointing.OFF:
        return
    if not getattr(model, "supports_gradient_checkpointing", True):
        raise UsageError(
            f"'{model.config.model_type}' has no gradient checkpointing in transformers",
            hint="use checkpointing: false",
        )
    reentrant = checkpointing is Checkpointing.REENTRANT
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})


def attach_adapters(model: Any, scenario: Scenario) -> Any:
    """The model inside peft's wrapper, low-rank adapters on the scenario's targets.

    peft 0.21 makes adapters in the base's dtype and casts 16-bit ones to fp32 (`autocast_adapter_dtype`). TRL lets it,
    and casts those of a quantised model again.
    """
    from peft import LoraConfig, get_peft_model

    lora = scenario.lora
    targets = ALL_LINEAR if lora.targets == (ALL_LINEAR,) else list(lora.targets)
    if isinstance(targets, list):
        _check_targets(model, targets, scenario.model.name)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=_has_conv1d(model),
        use_dora=lora.dora,
        modules_to_save=list(lora.modules_to_save) or None,
    )
    with warnings.catch_warnings():
        # With all-linear on a model that mixes Conv1D and Linear, peft corrects fan_in_fan_out itself, and warns.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        ignore_advice()
        try:
            trained = get_peft_model(model, config, autocast_adapter_dtype=casts_to_fp32(scenario))
        except ValueError as refusal:  # peft 0.21: not every projection of a state-space layer can have an adapter
            raise UsageError(
                f"peft refuses these adapters: {first_line(refusal)}",
                hint="name other modules in lora.targets",
            ) from refusal
    if lora.dtype is not DType.FLOAT32 or scenario.dtype is DType.FLOAT32 or lora.modules_dtype is not None:
        _cast(trained, scenario)
    return trained


def casts_to_fp32(scenario: Scenario) -> bool:
    """Whether peft casts 16-bit adapters to fp32."""
    return scenario.lora.dtype is DType.FLOAT32 or scenario.recasts_adapters


def ignore_advice() -> None:
    """Do not warn as peft 0.21 does: that the ranks of experts' adapters, which are parameters', match no module; of
    what a tied head means once the model is saved."""
    warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match")
    warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True` and a tied layer")


def _cast(model: nn.Module, scenario: Scenario) -> None:
    """Adapters and copies of whole modules to what they are trained in; TRL leaves magnitudes in fp32."""
    lora = scenario.lora
    for name, parameter in model.named_parameters():
        wanted = lora.modules_dtype if ".modules_to_save." in name else lora.dtype
        if ".lora_magnitude_vector." in name and scenario.recasts_adapters:
            continue
        if parameter.requires_grad and wanted is not None and parameter.dtype is not getattr(torch, wanted):
            parameter.data = parameter.data.to(getattr(torch, wanted))


def _check_targets(model: nn.Module, targets: list[str], name: str) -> None:
    """Refuse a target that matches no module; peft itself only refuses when none of them matches."""
    paths = [path for path, _ in model.named_modules()]
    for target in targets:
        if not any(path == target or path.endswith(f".{target}") for path in paths):
            known = adaptable(model)
            raise UsageError(
                f"unknown target module '{target}' for {name}",
                hint=f"{nearest(target, known)}available: {', '.join(known)}",
            )


def adaptable(model: Any) -> list[str]:
    """Last names of the linear modules that adapters can be attached to, in the order of the model."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linear = (nn.Linear, Conv1D)
    paths = [path for path, module in model.named_modules() if isinstance(module, linear) and module is not head]
    return list(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def _has_conv1d(model: nn.Module) -> bool:
    """Whether there are Conv1D layers that bitsandbytes did not replace: peft must know they are stored transposed."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())
