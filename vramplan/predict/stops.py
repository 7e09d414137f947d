"""Element types that torch cannot bring together on a card: the run ends at its first step, whatever fits."""

from collections.abc import Iterator

from vramplan.scenario import DType, Method, Scenario
from vramplan.stacks import LossKernel, Upcast

_ENDS = "the run stops at its first step"


def stops(scenario: Scenario) -> Iterator[str]:
    """Why the run will not come to a second step; each was seen in PyTorch's CUDA build (torch 2.13)."""
    if scenario.method.trains:
        if refused := _scaled_in_16_bits(scenario):
            cause = ", to which TRL casts a quantised model's adapters" if scenario.recasts_adapters else ""
            yield f"{_ENDS}: float16 autocast scales gradients, and torch none in {refused}{cause}"
        if _head_gets_fp32(scenario):
            yield f"{_ENDS}: without autocast the fp32 norms' output meets a head of {scenario.dtype.value}"


def _scaled_in_16_bits(scenario: Scenario) -> str:
    """The 16-bit type of the gradients that are to be scaled; empty where they are fp32, or none are scaled.

    native/cuda/AmpKernels.cu `_amp_foreach_non_finite_check_and_unscale_cuda` dispatches no bfloat16, and
    torch/amp/grad_scaler.py `unscale_` refuses float16.
    """
    stack = scenario.stack
    cast_up = scenario.method is Method.FULL and stack.upcast is Upcast.ALL
    trained = scenario.lora.dtype if scenario.method.adapts else scenario.dtype
    scaled = stack.autocast == DType.FLOAT16.value and trained is not DType.FLOAT32 and not cast_up
    return trained.value if scaled else ""


def _head_gets_fp32(scenario: Scenario) -> bool:
    """`F.linear` wants one element type; TRL's head casts its weight itself."""
    stack = scenario.stack
    alone = stack.upcast is Upcast.NORMS and stack.autocast is False and stack.loss is not LossKernel.TILED
    return alone and scenario.dtype is not DType.FLOAT32
