"""Sums, differences, products and quotients, of two tensors or with a number, also in place."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions, tensors_in
from vramplan.architecture.observed.handles import Handles, named_kind, spec
from vramplan.architecture.observed.observer import Handle

FUNCTIONS = Functions()

#: What torch's functions compute, by name.
_OPERATIONS = {
    "add": "add", "sub": "sub", "subtract": "sub", "rsub": "sub", "__rsub__": "sub", "mul": "mul", "multiply": "mul",
    "div": "div", "true_divide": "div", "divide": "div", "__rdiv__": "div",
}  # fmt: skip
#: Those whose first argument stands on the right.
_REVERSED = ("rsub", "__rsub__", "__rdiv__")


@FUNCTIONS.add(*_OPERATIONS)
def _arithmetic(handles: Handles, call: Call) -> Any:
    out, observer = call.run(), handles.observer
    tensors = tensors_in([*call.args[:2], call.kwargs.get("other")])
    shape, kind = spec(out)
    if len(tensors) == 1:
        return handles.give(out, _with_number(handles, call.name, handles.of(tensors[0]), kind))
    a, b = (handles.of(x) for x in tensors)
    if not all(map(named_kind, tensors)):
        return handles.give(out, observer.complex_product(a, b, shape))
    if call.name in _REVERSED:
        a, b = b, a
    return handles.give(out, observer.binary(_OPERATIONS[call.name], a, b, shape, kind))


def _with_number(handles: Handles, name: str, x: Handle, kind: str) -> Handle:
    operation, turned = _OPERATIONS[name], name in _REVERSED
    if operation in ("add", "sub") and not turned:
        return handles.observer.shift(x, kind)
    if operation == "div" and turned:  # torch/_tensor.py: `self.reciprocal() * other`
        x = handles.observer.pointwise(x, "reciprocal", "result", 2)
    return handles.observer.scale(x, kind)


@FUNCTIONS.add("neg", "negative")
def _negative(handles: Handles, call: Call) -> Any:
    out = call.run()
    return handles.give(out, handles.observer.scale(handles.of(call.first), spec(out)[1]))


@FUNCTIONS.add("add_", "sub_", "mul_", "div_")
def _in_place(handles: Handles, call: Call) -> Any:
    call.run()
    x, other = call.first, call.named("input", "other").get("other")
    b = handles.of(other) if isinstance(other, torch.Tensor) else None
    return handles.change(x, handles.observer.in_place(call.name.removesuffix("_"), handles.of(x), b))


@FUNCTIONS.add(
    "masked_fill_", "clamp_", "clip_", "fill_", "zero_", "index_copy_", "index_fill_", "index_put_", "scatter_",
    "uniform_", "normal_", "bernoulli_",
)  # fmt: skip
def _overwritten(handles: Handles, call: Call) -> Any:
    call.run()
    x = call.first
    others = [handles.of(y) for y in tensors_in([call.args[1:], call.kwargs])]
    return handles.change(x, handles.observer.overwritten(handles.of(x), others))


@FUNCTIONS.add("index_add_", "scatter_add_")
def _added_at(handles: Handles, call: Call) -> Any:
    call.run()
    return handles.change(call.first, _added(handles, call, handles.of(call.first)))


@FUNCTIONS.add("index_add", "scatter_add")
def _added_at_in_a_copy(handles: Handles, call: Call) -> Any:
    x, out = handles.of(call.first), call.run()
    return handles.give(out, _added(handles, call, handles.observer.copy(x, tuple(out.shape))))


def _added(handles: Handles, call: Call, x: Handle) -> Handle:
    index, source = (handles.of(y) for y in tensors_in([call.args[1:], call.kwargs]))
    return handles.observer.added_at(x, index, source, keeps_source="index" in call.name)


@FUNCTIONS.add("scatter", "index_copy", "index_fill", "index_put")
def _overwritten_copy(handles: Handles, call: Call) -> Any:
    x, out = handles.of(call.first), call.run()
    others = [handles.of(y) for y in tensors_in([call.args[1:], call.kwargs])]
    return handles.give(out, handles.observer.overwritten(handles.observer.copy(x, tuple(out.shape)), others))


@FUNCTIONS.add("copy_")
def _replaced(handles: Handles, call: Call) -> Any:
    call.run()
    x, source = call.first, call.args[1]
    return handles.change(x, handles.observer.replaced(handles.of(x), handles.of(source)))


@FUNCTIONS.add("__setitem__")
def _set(handles: Handles, call: Call) -> None:
    x, index, value = call.args
    if tensors_in(index):
        _overwritten(handles, call)
        return
    call.run()
    part = x[index]  # torch/csrc/autograd/python_variable_indexing.cpp: a view, into which is copied
    handles.give(part, handles.observer.part(handles.of(x), tuple(part.shape)))
    source = handles.of(value) if isinstance(value, torch.Tensor) else None
    handles.change(part, handles.observer.replaced(handles.of(part), source))
