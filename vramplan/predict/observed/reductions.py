"""Norms in one kernel, sums and their kin."""

from vramplan.predict.observed.gradients import own_gradient
from vramplan.predict.tape import FLOAT32, Gradients, Kind, Shape, Tape, Tensor


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


def reduced(t: Tape, x: Tensor, shape: Shape, kind: Kind, name: str) -> Tensor:
    """`sum` hands its gradient on expanded; `mean` divides it into a full tensor; others need what they saw."""
    out, before = t.new(shape, kind, name), x.shape
    if name == "mean":
        return own_gradient(t, x, out, "mean gradient")
    if not t.needs_grad(x):
        return out
    if name == "sum":
        return t.record(out, (x,), [], lambda saved, grad: (t.view(grad, before),))
    saved = t.save((x, out))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        temporary = t.new(before, grad.kind, f"{name} gradient temporary")
        result = t.new(before, grad.kind, f"{name} gradient")
        del temporary
        return (result,)

    return t.record(out, (x,), saved, backward)
