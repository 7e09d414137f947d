"""Tensors whose values decide something: what makes constants, and what the code asks of them.

Whole sequences without padding or packing are run: what is asked of all positions holds, nothing is odd in any.
"""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions
from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import NotObservable

FUNCTIONS = Functions()

_ANSWER, _RANDOM, _COUNT = "_answer", "_random", "_count"


def mark_count(x: torch.Tensor) -> None:
    """Remember that `x` counts how many positions a mask lets through."""
    setattr(x, _COUNT, True)


@FUNCTIONS.add(
    "arange", "zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros",
    "new_ones", "new_empty", "new_full", "tensor", "eq", "ne", "lt", "le", "gt", "ge", "__eq__", "logical_and",
    "logical_or", "logical_not", "__and__", "__or__", "__invert__", "bitwise_and", "bitwise_or", "bitwise_not",
    "argsort", "argmax", "argmin", "one_hot", "isin", "eye", "linspace", "randn", "floor_divide", "__floordiv__",
    "remainder", "searchsorted", "isnan", "isinf", "new_tensor", "floor", "ceil", "round", "sign",
    "rand_like", "randn_like",
)  # fmt: skip
def _constant(handles: Handles, call: Call) -> Any:
    out = call.run()
    if not isinstance(out, torch.Tensor):
        return out
    if call.args and getattr(call.args[0], _RANDOM, False):  # `torch.rand([]) < layerdrop`: no layer is dropped
        setattr(out, _ANSWER, False)
    if call.args and getattr(call.args[0], _COUNT, False):  # `mask.sum() == mask.numel()`: nothing is masked out
        setattr(out, _ANSWER, True)
    return handles.constant(out)


@FUNCTIONS.add("rand")
def _random(handles: Handles, call: Call) -> Any:
    out = call.run()
    setattr(out, _RANDOM, True)
    return handles.constant(out)


@FUNCTIONS.add("histc", "bincount")
def _histogram(handles: Handles, call: Call) -> Any:
    x = call.first
    bins = call.kwargs.get("bins") or call.kwargs.get("minlength") or (call.args[1] if len(call.args) > 1 else 100)
    return handles.constant(torch.empty((bins,), dtype=x.dtype, device="meta"))


@FUNCTIONS.add("all", "any", "_is_all_true", "_is_any_true")
def _asked(handles: Handles, call: Call) -> Any:
    out = call.run()
    setattr(out, _ANSWER, "all" in call.name)
    return handles.constant(out)


@FUNCTIONS.add("__bool__")
def _decided(handles: Handles, call: Call) -> Any:
    answer = getattr(call.first, _ANSWER, None)
    if answer is None:
        raise NotObservable("a decision on values")
    return answer


@FUNCTIONS.add("__contains__")
def _contained(handles: Handles, call: Call) -> Any:
    return False  # `pad_token_id in input_ids`: nothing is padded


@FUNCTIONS.add(
    "item", "tolist", "numpy", "__int__", "__float__", "__index__", "nonzero", "unique", "unique_consecutive"
)
def _valued(handles: Handles, call: Call) -> Any:
    raise NotObservable(f"values ({call.name.strip('_')})")
