"""What shares memory and what is laid out anew: views, copies, other element types, joins."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions, share_memory, tensors_in
from vramplan.architecture.observed.handles import Handles, named_kind, spec

FUNCTIONS = Functions()


@FUNCTIONS.add(
    "view", "reshape", "flatten", "transpose", "permute", "unsqueeze", "squeeze", "contiguous", "unflatten", "view_as",
    "reshape_as", "swapaxes", "movedim", "t", "expand", "expand_as", "broadcast_to", "clone", "narrow", "select",
    "__getitem__", "diagonal", "view_as_complex", "view_as_real", "moveaxis", "swapdims", "ravel",
)  # fmt: skip
def _viewed(handles: Handles, call: Call) -> Any:
    x, out = call.first, call.run()
    if out is x:
        return out
    observer, before, shape = handles.observer, handles.of(x), spec(out)[0]
    indices = tensors_in(call.args[1:])
    if call.name == "__getitem__" and indices:
        return handles.give(out, observer.gather(before, [handles.of(i) for i in indices], shape, False))
    if call.name == "clone" or not share_memory(out, x):
        return handles.give(out, observer.copy(before, shape))
    if out.numel() == x.numel():
        return handles.give(out, observer.view(before, shape))
    if out.numel() < x.numel():
        return handles.give(out, observer.part(before, shape))
    return handles.give(out, observer.expand(before, shape))


@FUNCTIONS.add("chunk", "split", "unbind", "tensor_split", "split_with_sizes")
def _split(handles: Handles, call: Call) -> Any:
    outs = call.run()
    parts = handles.observer.parts(handles.of(call.first), [tuple(out.shape) for out in outs])
    for out, handle in zip(outs, parts, strict=True):
        handles.put(out, handle)
    return outs


@FUNCTIONS.add("detach")
def _detached(handles: Handles, call: Call) -> Any:
    return handles.give(call.run(), handles.observer.detach(handles.of(call.first)))


@FUNCTIONS.add("to", "float", "half", "bfloat16", "type_as", "type", "bool", "int", "long", "double")
def _cast(handles: Handles, call: Call) -> Any:
    x, out = call.first, call.run()
    if out is x or not isinstance(out, torch.Tensor):
        return out
    if out.dtype is x.dtype:
        return handles.give(out, handles.observer.copy(handles.of(x), tuple(out.shape)))
    if out.is_floating_point() and x.is_floating_point() and named_kind(out):
        return handles.give(out, handles.observer.cast(handles.of(x), spec(out)[1]))
    return handles.constant(out)


@FUNCTIONS.add("cat", "concat", "stack", "hstack", "concatenate")
def _joined(handles: Handles, call: Call) -> Any:
    out = call.run()
    pieces = call.named("tensors")["tensors"]
    return handles.give(out, handles.observer.join([handles.of(piece) for piece in pieces], *spec(out)))


@FUNCTIONS.add("repeat", "tile", "repeat_interleave", "flip", "roll", "pad", "tril", "triu")
def _rearranged(handles: Handles, call: Call) -> Any:
    x, out = call.first, call.run()
    return out if out is x else handles.give(out, handles.observer.rearranged(handles.of(x), spec(out)[0]))
