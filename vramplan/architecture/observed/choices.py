"""What picks elements: by bounds, by order, by index, by a mask."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions, tensors_in
from vramplan.architecture.observed.handles import Handles, spec

FUNCTIONS = Functions()


@FUNCTIONS.add("clamp", "clip", "clamp_min", "clamp_max")
def _clamp(handles: Handles, call: Call) -> Any:
    out = call.run()
    bounds = sum(value is not None for value in (*call.args[1:], *call.kwargs.values()))
    return handles.give(out, handles.observer.clamp(handles.of(call.first), max(1, bounds), spec(out)[1]))


@FUNCTIONS.add("maximum", "minimum", "fmax", "fmin")
def _larger(handles: Handles, call: Call) -> Any:
    out = call.run()
    a, b = (handles.of(x) for x in call.named("input", "other").values())
    return handles.give(out, handles.observer.larger(a, b, *spec(out)))


@FUNCTIONS.add("topk", "sort", "max", "min", "median", "cummax")
def _chosen(handles: Handles, call: Call) -> Any:
    out = call.run()
    if isinstance(out, torch.Tensor):
        if len(tensors_in([call.args, call.kwargs])) > 1:  # `torch.max(a, b)`
            return _larger(handles, call)
        return handles.give(out, handles.observer.reduced(handles.of(call.first), *spec(out), call.name))
    keeps_input = call.name == "cummax"
    made = handles.observer.chosen(handles.of(call.first), tuple(out[0].shape), keeps_input)
    for x, handle in zip(out, made, strict=True):
        handles.put(x, handle)
    return out


@FUNCTIONS.add("gather", "index_select", "take_along_dim")
def _gathered(handles: Handles, call: Call) -> Any:
    out = call.run()
    indices = [handles.of(x) for x in tensors_in([call.args[1:], call.kwargs]) if x is not call.first]
    keeps_input = call.name != "index_select"
    return handles.give(out, handles.observer.gather(handles.of(call.first), indices, tuple(out.shape), keeps_input))


@FUNCTIONS.add("embedding")
def _embedding(handles: Handles, call: Call) -> Any:
    out = call.run()
    indices, table = (handles.of(call.named("input", "weight")[name]) for name in ("input", "weight"))
    return handles.give(out, handles.observer.embedding(table, indices, tuple(out.shape)))


@FUNCTIONS.add("where")
def _where(handles: Handles, call: Call) -> Any:
    out = call.run()
    names = ("condition", "input", "other") if call.function is torch.where else ("input", "condition", "other")
    given = call.named(*names)
    branches = [handles.of(x) if isinstance(x, torch.Tensor) else None for x in (given.get("input"), given["other"])]
    return handles.give(out, handles.observer.where(handles.of(given["condition"]), branches, *spec(out)))


@FUNCTIONS.add("masked_fill")
def _masked(handles: Handles, call: Call) -> Any:
    out = call.run()
    mask = call.named("input", "mask")["mask"]
    return handles.give(out, handles.observer.masked(handles.of(call.first), handles.of(mask)))
