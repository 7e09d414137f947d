"""Matrix products, linear layers, convolutions: what autocast computes in its own type."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions, share_memory, tensors_in
from vramplan.architecture.observed.handles import Handles, spec

FUNCTIONS = Functions()


@FUNCTIONS.add("matmul", "__rmatmul__", "bmm", "mm", "mv", "einsum")
def _product(handles: Handles, call: Call) -> Any:
    tensors = tensors_in(call.args)
    low = [[*map(handles.low, x)] if isinstance(x, list | tuple) else handles.low(x) for x in call.args]
    out = call.function(*low, **call.kwargs)
    if len(tensors) != 2:
        return handles.give(out, handles.observer.opaque([handles.of(x) for x in tensors], [spec(out)])[0])
    a, b = reversed(tensors) if call.name == "__rmatmul__" else tensors
    shape = tuple(out.shape)
    # derivatives are computed in the order of their names: `mat2` before `self`, which comes before `vec`
    product = handles.observer.matmul(
        handles.of(a), handles.of(b), shape, _copied(a, shape), _copied(b, shape), left_first=b.dim() == 1
    )
    return handles.give(out, product)


def _copied(x: torch.Tensor, out: tuple[int, ...]) -> tuple[int, ...]:
    """As what a batched product lays `x` out anew, where its leading dimensions, repeated as the result's, do not
    become one by a view; empty where they do."""
    if x.dim() < 3 or len(out) < 3:
        return ()
    whole = x.expand(*out[:-2], *x.shape[-2:])
    return () if share_memory(whole.reshape(-1, *x.shape[-2:]), x) else tuple(whole.shape)


@FUNCTIONS.add("baddbmm", "addmm")
def _added_product(handles: Handles, call: Call) -> Any:
    names = ("input", "batch1", "batch2") if call.name == "baddbmm" else ("input", "mat1", "mat2")
    given = call.named(*names)
    bias, a, b = (given.pop(name) for name in names)
    out = call.function(handles.low(bias), handles.low(a), handles.low(b), **given)
    # `batch1` before `batch2`
    product = handles.observer.matmul(handles.of(a), handles.of(b), tuple(out.shape), (), (), left_first=True)
    return handles.give(out, handles.observer.added_in_product(product, handles.of(bias)))


@FUNCTIONS.add("linalg_solve_triangular")
def _solved(handles: Handles, call: Call) -> Any:
    matrix, right = call.args[:2]
    out = call.run()
    return handles.give(out, handles.observer.solved(handles.of(matrix), handles.of(right), tuple(out.shape)))


@FUNCTIONS.add("linear")
def _linear(handles: Handles, call: Call) -> Any:
    given = call.named("input", "weight", "bias")
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    out = call.function(handles.low(x), handles.low(weight), handles.low(bias))
    return handles.give(out, handles.observer.linear(handles.of(x), handles.of(weight), handles.optional(bias)))


@FUNCTIONS.add("_grouped_mm", "grouped_mm")
def _grouped(handles: Handles, call: Call) -> Any:
    x, weight = call.args[:2]
    out = torch.empty((x.shape[0], weight.shape[-1]), dtype=x.dtype, device="meta")
    offsets = [handles.of(y) for y in tensors_in([call.args[2:], call.kwargs])[:1]]
    return handles.give(out, handles.observer.grouped(handles.of(x), handles.of(weight), offsets, tuple(out.shape)))


@FUNCTIONS.add("conv1d")
def _convolved(handles: Handles, call: Call) -> Any:
    given = call.named("input", "weight", "bias")
    x, weight, bias = handles.of(given["input"]), handles.of(given["weight"]), handles.optional(given.get("bias"))
    low = {key: handles.low(value) for key, value in call.kwargs.items()}
    out = call.function(*map(handles.low, call.args), **low)
    return handles.give(out, handles.observer.convolved(x, weight, bias, tuple(out.shape)))
