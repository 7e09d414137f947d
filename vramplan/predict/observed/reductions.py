"""Norms in one kernel, sums and their kin."""

from collections.abc import Sequence

from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import BOOL, FLOAT32, Gradients, Kind, Shape, Tape, Tensor

#: Full-size temporaries of a gradient, where it is not one (FunctionsManual.cpp).
_TEMPORARIES = {"logsumexp": 2, "cumprod": 3, "max": 0, "min": 0, "median": 0}
#: Whose gradient first looks where the input is the result, or zero.
_MASKED = ("amax", "amin", "max", "min", "median", "cumprod")


def fused_rms_norm(t: Tape, x: Tensor, weight: Tensor | None) -> Tensor:
    """`F.rms_norm`, one kernel on CUDA: saves its input and a reciprocal root per row."""
    if x.kind is not FLOAT32:
        t.doubts.add("torch's own RMS norm in 16 bits")
    grad_needed = t.needs_grad(x, weight)
    saved = t.save((x, weight)) if grad_needed else []
    out = t.new(x.shape, x.kind, "norm output")
    roots = t.new((*x.shape[:-1], 1), FLOAT32, "norm rstd")
    if not grad_needed:
        return out
    saved += t.save((roots,))
    nx, nw, shape = x.node is not None, weight is not None and weight.node is not None, x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (
            t.new(shape, grad.kind, "norm gradient") if nx else None,
            t.new(shape[-1:], grad.kind, "norm weight gradient") if nw else None,
        )

    return t.record(out, (x, weight), saved, backward)


def summed(t: Tape, x: Tensor, shape: Shape, kind: Kind, dims: Sequence[int]) -> Tensor:
    """`sum` hands its gradient on expanded: along the dimensions that it summed over, memory repeats."""
    out, before = t.new(shape, kind, "sum"), x.shape
    if not t.needs_grad(x):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        expanded = t.view(grad, before)
        expanded.repeats = frozenset(dims)
        return (expanded,)

    return t.record(out, (x,), [], backward)


def reduced(t: Tape, x: Tensor, shape: Shape, kind: Kind, name: str) -> Tensor:
    """`mean` divides its gradient into a full tensor; others need what they saw, most their result too."""
    before = x.shape
    if name == "logsumexp":  # ReduceOps.cpp: the exponentials of what is left above the largest are made for their sum
        t.new(before, kind, "exponentials")
    if name == "mean":
        return own_gradient(t, x, t.new(shape, kind, name), "mean gradient")
    saved = saved_for(t, x, x)
    out = t.new(shape, kind, name)
    if not t.needs_grad(x):
        return out
    saved += t.save(() if name == "var" else (out,))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        mask = t.new(before, BOOL, f"{name} gradient mask") if name in _MASKED else None
        temporaries = [t.new(before, grad.kind, f"{name} gradient temporary") for _ in range(_TEMPORARIES.get(name, 1))]
        result = t.new(before, grad.kind, f"{name} gradient")
        del mask, temporaries
        return (result,)

    return t.record(out, (x,), saved, backward)
