"""Liger's kernels, patched into a model by Liger itself: its fused loss, and operations of the decoder layers."""

from typing import Any

from vramplan.errors import UsageError
from vramplan.stacks import LayerKernel, LossKernel, Stack

#: What `_apply_liger_kernel_to_instance` (liger-kernel 0.8.5 transformers/monkey_patch.py) calls them. Each family's
#: function takes those that it knows.
_ARGUMENTS: dict[LayerKernel, tuple[str, ...]] = {
    LayerKernel.ROPE: ("rope",),
    LayerKernel.RMS_NORM: ("rms_norm", "layer_norm"),
    LayerKernel.MLP: ("swiglu", "geglu", "relu_squared"),
}


def install_liger(model: Any, stack: Stack) -> None:
    """Give the causal language model the kernels of Liger's that the stack asks for; a UsageError where it has none.

    As transformers' Trainer does (`apply_liger_kernel`), once the model is loaded and has its adapters: what is on by
    default in a family's function stays so, and the rest is switched off.
    """
    if not stack.liger:
        return
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
        _apply_liger_kernel_to_instance,
    )

    family, fused = model.config.model_type, stack.loss is LossKernel.LIGER
    if family not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        key = "loss" if fused else "kernels"
        raise UsageError(f"stack.{key}: Liger has nothing for {family}", hint=f"use {key}: torch")
    unwanted = [name for kernel, names in _ARGUMENTS.items() if kernel not in stack.kernels for name in names]
    unwanted += ["cross_entropy"] if fused else ["cross_entropy", "fused_linear_cross_entropy"]
    _apply_liger_kernel_to_instance(model=model, **dict.fromkeys(unwanted, False))
    if fused and "forward" not in vars(model):
        raise UsageError(f"stack.loss: Liger has no fused loss for {family}", hint="use loss: chunked")
