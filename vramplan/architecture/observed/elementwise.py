"""Functions of each element, and dropout."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions
from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import Saves
from vramplan.architecture.observed.opaque import opaque

FUNCTIONS = Functions()

#: What each saves for backward, and how many full-size temporaries its gradient needs (torch 2.13 derivatives.yaml).
_POINTWISE: dict[str, tuple[Saves, int]] = {
    "silu": ("input", 0), "gelu": ("input", 0), "relu": ("result", 0), "sigmoid": ("result", 0), "tanh": ("result", 0),
    "mish": ("input", 0), "elu": ("input", 0), "leaky_relu": ("input", 0), "hardtanh": ("input", 0), "relu6":
    ("input", 0), "exp": ("result", 0), "rsqrt": ("result", 2), "sqrt": ("result", 1), "log": ("input", 0), "abs":
    ("input", 1), "sin": ("input", 1), "cos": ("input", 2), "softplus": ("input", 0), "reciprocal": ("result", 2),
    "square": ("input", 2), "log1p": ("input", 1), "expm1": ("result", 1), "selu": ("input", 0), "erf": ("input", 4),
    "log_sigmoid": ("input", 0), "hardswish": ("input", 0), "log2": ("input", 1),
}  # fmt: skip
#: Those that CUDA's autocast runs in fp32 (ATen/autocast_mode.h AT_FORALL_FP32).
_IN_FP32 = {"exp", "rsqrt", "log", "softplus", "reciprocal", "log1p", "expm1", "log2", "square"}


@FUNCTIONS.add(*_POINTWISE, "relu_", "silu_", "sigmoid_")
def _pointwise(handles: Handles, call: Call) -> Any:
    x = handles.raised(call.first) if call.name in _IN_FP32 else call.first
    out = call.run_on(x)
    saves, temporaries = _POINTWISE[call.name.removesuffix("_")]
    return handles.give(out, handles.observer.pointwise(handles.of(x), call.name, saves, temporaries))


@FUNCTIONS.add("pow")
def _power(handles: Handles, call: Call) -> Any:
    base, exponent = call.named("input", "exponent").values()
    if not isinstance(base, torch.Tensor) or not base.is_floating_point() or isinstance(exponent, torch.Tensor):
        return opaque(handles, call)
    x = handles.raised(base)  # pow(2) is computed as x * x, but autocast sees the call all the same
    return handles.give(call.run_on(x), handles.observer.pointwise(handles.of(x), "power", "input", 2))


@FUNCTIONS.add("dropout")
def _dropout(handles: Handles, call: Call) -> Any:
    given = call.named("input", "p", "training")
    x = given["input"]
    if not given.get("training", True) or not given.get("p", 0.5):
        return x
    out = torch.empty_like(x, memory_format=torch.preserve_format)
    return handles.give(out, handles.observer.dropout(handles.of(x)))
