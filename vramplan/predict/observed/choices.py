"""What takes one of two tensors, element by element."""

from collections.abc import Sequence

from vramplan.predict.operations.gradients import new_gradients, summed, wanted
from vramplan.predict.tape import BOOL, Gradients, Kind, Shape, Tape, Tensor


def larger(t: Tape, a: Tensor, b: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """`maximum` saves both; a gradient is halved where they are equal, then filled where the other was taken: b's
    first, each with temporaries of its own."""
    grad_needed = t.needs_grad(a, b)
    saved = t.save((a, b)) if grad_needed else []
    out = t.new(shape, kind, "larger")
    if not grad_needed:
        return out
    shapes = wanted(a, b)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        made = [None if each is None else _where_taken(t, grad) for each in reversed(shapes)][::-1]
        return [summed(t, each, shape) for each, shape in zip(made, shapes, strict=True)]

    return t.record(out, (a, b), saved, backward)


def _where_taken(t: Tape, grad: Tensor) -> Tensor:
    half, equal = t.new(grad.shape, grad.kind, "half gradient"), t.new(grad.shape, BOOL, "equal")
    made = t.new(grad.shape, grad.kind, "gradient where taken")
    other = t.new(grad.shape, BOOL, "where the other was")
    del half, equal, other
    return made


def where(t: Tape, mask: Tensor, branches: Sequence[Tensor | None], shape: Shape, kind: Kind) -> Tensor:
    """Saves the mask; each branch's gradient is the incoming one where it was taken."""
    grad_needed = t.needs_grad(*branches)
    saved = t.save((mask,)) if grad_needed else []
    out = t.new(shape, kind, "one or the other")
    if not grad_needed:
        return out
    shapes = wanted(*branches)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return new_gradients(t, shapes, grad.kind, "branch gradient")

    return t.record(out, branches, saved, backward)
