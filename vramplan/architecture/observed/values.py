"""Tensors whose values decide something: what makes constants, and what the code asks of them.

Whole sequences are run, not packed: what is asked of all positions holds, nothing is odd in any. Only of the mask of a
padded batch, one row a sample, it is the other way round.
"""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions
from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.observer import NotObservable

FUNCTIONS = Functions()

_ANSWER, _RANDOM, _COUNT = "_answer", "_random", "_count"


def mark_count(x: torch.Tensor, *, whole: bool) -> None:
    """Remember that `x` counts how many positions a mask lets through, and whether these are all."""
    setattr(x, _COUNT, whole)


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
    whole = getattr(call.args[0], _COUNT, None) if call.args else None
    if whole is not None:  # `mask.sum() == mask.numel()`
        setattr(out, _ANSWER, whole)
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
    setattr(out, _ANSWER, ("all" in call.name) is handles.lets_all_through(call.first))
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
