"""Slices, repetitions, copies and joins of whatever shape."""

from collections.abc import Sequence

from vramplan.predict.operations.gradients import own_gradient
from vramplan.predict.operations.views import reshaped
from vramplan.predict.tape import Kind, Shape, Tape, Tensor


def part(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A slice: its gradient is zeros with the slice filled in."""
    return own_gradient(t, x, t.view(x, shape), "slice gradient")


def expand(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A view that repeats: the gradient is summed."""
    return own_gradient(t, x, t.view(x, shape), "gradient summed over what was expanded")


def copy(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A copy with other dimensions or strides: the gradient passes."""
    out, before = t.new(shape, x.kind, "copy"), x.shape
    if not t.needs_grad(x):
        return out
    return t.record(out, (x,), [], lambda saved, grad: (grad if before == shape else reshaped(t, grad, before),))


def join(t: Tape, xs: Sequence[Tensor], shape: Shape, kind: Kind) -> Tensor:
    """A concatenation: gradients are views of the incoming one."""
    out = t.new(shape, kind, "concatenation")
    if not t.needs_grad(*xs):
        return out
    shapes = [x.shape for x in xs]
    return t.record(out, xs, [], lambda saved, grad: [t.view(grad, each) for each in shapes])


def rearranged(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A copy whose gradient is a tensor of its own."""
    return own_gradient(t, x, t.new(shape, x.kind, "rearranged"), "rearranged gradient")
