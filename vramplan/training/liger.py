"""Liger's kernels, patched into a model by Liger itself: its fused loss, and operations of the decoder layers."""

from typing import Any

from vramplan.errors import CannotRun
from vramplan.stacks import LayerKernel, LossKernel, Stack

#: Arguments of Liger's functions that nobody asks for here; each family's function takes those that it knows.
_NEVER = ("cross_entropy", "layer_norm", "relu_squared")


def install_liger(model: Any, stack: Stack) -> None:
    """Give the causal language model the kernels of Liger's that the stack asks for; CannotRun without the package.

    As transformers' Trainer does (`apply_liger_kernel`), once the model is loaded and has its adapters.
    """
    if not stack.liger:
        return
    fused = stack.loss is LossKernel.LIGER
    try:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance
    except ImportError as error:
        key = "loss" if fused else "kernels"
        raise CannotRun(
            f"stack.{key}: liger needs the package liger-kernel", hint="pip install 'vramplan[measure,liger]'"
        ) from error
    layers = {name: kernel in stack.kernels for kernel in LayerKernel for name in kernel.arguments}
    _apply_liger_kernel_to_instance(
        model=model, fused_linear_cross_entropy=fused, **layers, **dict.fromkeys(_NEVER, False)
    )
