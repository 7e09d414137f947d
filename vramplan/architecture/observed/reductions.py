"""What goes over whole dimensions: softmax, norms, sums, the loss."""

from typing import Any

import torch

from vramplan.architecture.observed.calls import Call, Functions
from vramplan.architecture.observed.handles import Handles, spec
from vramplan.architecture.observed.values import mark_count

FUNCTIONS = Functions()


@FUNCTIONS.add("softmax")
def _softmax(handles: Handles, call: Call) -> Any:
    out = call.run()
    kind = _widened(handles, call, spec(out)[1])
    return handles.give(out.to(getattr(torch, kind)), handles.observer.softmax(handles.of(call.first), kind))


@FUNCTIONS.add("log_softmax")
def _log_softmax(handles: Handles, call: Call) -> Any:
    x = handles.raised(call.first)
    return handles.give(call.run_on(x), handles.observer.pointwise(handles.of(x), "log-softmax", "result", 0))


@FUNCTIONS.add("layer_norm")
def _layer_norm(handles: Handles, call: Call) -> Any:
    given = call.named("input", "normalized_shape", "weight", "bias", "eps")
    x, weight, bias = given["input"], handles.optional(given.get("weight")), handles.optional(given.get("bias"))
    return handles.give(_laid_out(x), handles.observer.layer_norm(handles.of(x), weight, bias))


@FUNCTIONS.add("rms_norm")
def _rms_norm(handles: Handles, call: Call) -> Any:
    given = call.named("input", "normalized_shape", "weight", "eps")
    x, weight = given["input"], handles.optional(given.get("weight"))
    return handles.give(_laid_out(x), handles.observer.fused_rms_norm(handles.of(x), weight))


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@FUNCTIONS.add("mean", "norm", "amax", "amin", "logsumexp", "prod", "var", "std")
def _reduced(handles: Handles, call: Call) -> Any:
    x = handles.raised(call.first) if call.name == "logsumexp" else call.first
    out = call.run_on(x)
    shape, kind = spec(out)
    if call.name in ("norm", "prod"):
        kind = _widened(handles, call, kind)
    return handles.give(out, handles.observer.reduced(handles.of(x), shape, kind, call.name))


@FUNCTIONS.add("sum")
def _sum(handles: Handles, call: Call) -> Any:
    x, out = call.first, call.run()
    if x.dtype is torch.bool and not out.dim():
        mark_count(out, whole=handles.lets_all_through(x))
    shape, kind = spec(out)
    given = call.named("input", "dim").get("dim")
    wanted = range(x.dim()) if given is None else [given] if isinstance(given, int) else given
    dims = tuple(dim % x.dim() for dim in wanted)
    return handles.give(out, handles.observer.sum(handles.of(x), shape, _widened(handles, call, kind), dims))


def _widened(handles: Handles, call: Call, kind: str) -> str:
    """What autocast makes of the result where nothing is asked for: these convert as they read."""
    return kind if call.kwargs.get("dtype") is not None else handles.observer.widened(kind)


@FUNCTIONS.add("cumsum", "cumprod")
def _cumulated(handles: Handles, call: Call) -> Any:
    x = call.first if call.kwargs.get("dtype") is not None else handles.raised(call.first)
    out = call.run_on(x)
    if not out.is_floating_point():
        return handles.constant(out)
    if call.name == "cumprod":
        return handles.give(out, handles.observer.reduced(handles.of(x), *spec(out), call.name))
    return handles.give(out, handles.observer.pointwise(handles.of(x), call.name, "nothing", 2))


@FUNCTIONS.add("cross_entropy")
def _cross_entropy(handles: Handles, call: Call) -> Any:
    out = torch.empty((), dtype=torch.float32, device="meta")
    given = call.named("input", "target")
    logits, labels = handles.raised(given["input"]), given["target"]
    return handles.give(out, handles.observer.cross_entropy(handles.of(logits), handles.of(labels)))
