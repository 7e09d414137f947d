"""Activation functions, by transformers' ACT2FN name."""

from vramplan.predict.operations import add, mul, pointwise, raised, scale, shift
from vramplan.predict.tape import Tape, Tensor

#: One kernel that saves its input (silu_backward, gelu_backward).
_SAVES_INPUT = ("silu", "swish", "gelu", "gelu_pytorch_tanh", "gelu_python_tanh")

KNOWN_ACTIVATIONS = (*_SAVES_INPUT, "relu", "gelu_new")


def activation(t: Tape, name: str, x: Tensor) -> Tensor:
    """`ACT2FN[name](x)`; one that is not known is taken for one kernel that keeps its input, and the step warns."""
    if name == "relu":
        return pointwise(t, x, name, saves="result")
    if name == "gelu_new":
        return _gelu_new(t, x)
    return pointwise(t, x, name, saves="input")


def _gelu_new(t: Tape, x: Tensor) -> Tensor:
    """`0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x**3)))`, each step a tensor (NewGELUActivation)."""
    half = scale(t, x, "0.5 * x")
    return mul(t, half, _tanh_term(t, x), "gelu_new")


def _tanh_term(t: Tape, x: Tensor) -> Tensor:
    return shift(t, pointwise(t, _tanh_input(t, x), "tanh", saves="result"), "1 + tanh")


def _tanh_input(t: Tape, x: Tensor) -> Tensor:
    return scale(t, add(t, x, scale(t, _cube(t, x), "0.044715 * x**3"), "x + ..."), "tanh input")


def _cube(t: Tape, x: Tensor) -> Tensor:
    return pointwise(t, raised(t, x), "x**3", saves="input", temporaries=2)
