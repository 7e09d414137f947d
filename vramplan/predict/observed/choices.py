"""What picks elements: by bounds, by order, by index, by a mask."""

from collections.abc import Sequence

from vramplan.predict.observed.gradients import new_gradients, own_gradient, summed, wanted
from vramplan.predict.tape import BOOL, INT64, Gradients, Kind, Shape, Tape, Tensor


def clamp(t: Tape, x: Tensor, bounds: int, kind: Kind) -> Tensor:
    """`clamp`: saves its input; backward compares it with every bound, then selects."""
    out = t.new(x.shape, kind, "clamped")
    if not t.needs_grad(x):
        return out
    saved, shape = t.save((x,)), x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        inside = [t.new(shape, BOOL, "inside the bound") for _ in range(bounds)]
        result = t.new(shape, grad.kind, "clamped gradient")
        del inside
        return (result,)

    return t.record(out, (x,), saved, backward)


def larger(t: Tape, a: Tensor, b: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """`maximum` saves both; a gradient is halved where they are equal, then filled where the other was taken: b's
    first, each with temporaries of its own."""
    out = t.new(shape, kind, "larger")
    if not t.needs_grad(a, b):
        return out
    saved, shapes = t.save((a, b)), wanted(a, b)

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


def chosen(t: Tape, x: Tensor, shape: Shape, keeps_input: bool) -> tuple[Tensor, Tensor]:
    """`topk`, `sort`: saves the indices, `cummax` its input too; the gradient is scattered into zeros."""
    values, indices = t.new(shape, x.kind, "chosen"), t.new(shape, INT64, "indices")
    saves = (x, indices) if keeps_input else (indices,)
    return own_gradient(t, x, values, "gradient of the chosen", saves=saves), indices


def gather(t: Tape, x: Tensor, indices: Sequence[Tensor], shape: Shape, keeps_input: bool) -> Tensor:
    """Saves the indices, `gather` its input too; the gradient is added into zeros of x's shape."""
    saved = t.save((x, *indices) if keeps_input else indices) if t.needs_grad(x) else []
    out = t.new(shape, x.kind, "gathered")
    if not t.needs_grad(x):
        return out
    before = x.shape
    return t.record(out, (x,), saved, lambda saved, grad: (t.new(before, grad.kind, "gathered gradient"),))


def where(t: Tape, mask: Tensor, branches: Sequence[Tensor | None], shape: Shape, kind: Kind) -> Tensor:
    """Saves the mask; each branch's gradient is the incoming one where it was taken."""
    out = t.new(shape, kind, "one or the other")
    if not t.needs_grad(*branches):
        return out
    saved, shapes = t.save((mask,)), wanted(*branches)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return new_gradients(t, shapes, grad.kind, "branch gradient")

    return t.record(out, branches, saved, backward)


def masked(t: Tape, x: Tensor, mask: Tensor) -> Tensor:
    """`masked_fill`: a copy; saves the mask."""
    return own_gradient(t, x, t.new(x.shape, x.kind, "masked copy"), "masked gradient", saves=(mask,))
