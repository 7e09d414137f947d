"""Gradients that are tensors of their own."""

from collections.abc import Sequence

from vramplan.predict.tape import FLOATS, Gradients, Kind, Shape, Tape, Tensor


def wanted(*xs: Tensor | None) -> list[Shape | None]:
    """The shapes of those that need a gradient; None for the others."""
    return [None if x is None or x.node is None else x.shape for x in xs]


def new_gradients(t: Tape, shapes: Sequence[Shape | None], kind: Kind, label: str) -> list[Tensor | None]:
    """A new tensor for each that is wanted."""
    return [None if shape is None else t.new(shape, kind, label) for shape in shapes]


def summed(t: Tape, grad: Tensor | None, shape: Shape | None) -> Tensor | None:
    """A gradient summed over what was broadcast, as the engine does with what a node returns."""
    if grad is None or shape is None or grad.shape == shape:
        return grad
    return t.new(shape, grad.kind, "gradient summed over broadcast dimensions")


def own_gradient(t: Tape, x: Tensor, out: Tensor, label: str, saves: Sequence[Tensor] = ()) -> Tensor:
    """`out`, made of `x`, whose gradient becomes a tensor of x's shape."""
    if not t.needs_grad(x):
        return out
    shape = x.shape
    return t.record(out, (x,), t.save(saves), lambda saved, grad: (t.new(shape, grad.kind, label),))


def opaque(t: Tape, xs: Sequence[Tensor], outs: Sequence[tuple[Shape, Kind]]) -> list[Tensor]:
    """An operation about which nothing is known: it saves its inputs, each gets a gradient of its own."""
    made = [t.new(shape, kind, "result") for shape, kind in outs]
    if not t.needs_grad(*xs):
        return made
    saved, shapes = t.save([x for x in xs if x.storage is not None]), wanted(*xs)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return new_gradients(t, shapes, grad.kind, "gradient")

    for out in made:
        if out.kind.name in FLOATS:
            t.record(out, xs, saved, backward)
    return made
