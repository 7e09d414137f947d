"""Quotients, products of complex numbers, and what is computed in place."""

from collections.abc import Sequence

from vramplan.predict.observed.gradients import new_gradients, wanted
from vramplan.predict.operations import add_in_place, wider
from vramplan.predict.tape import FLOAT32, FLOATS, Gradients, Shape, Tape, Tensor


def quotient(t: Tape, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
    """`a / b`: the numerator is saved for the denominator's gradient, `-grad * ((a / b) / b)`."""
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((a if nb else None, b)) if na or nb else []
    out = t.new(shape, wider(a.kind, b.kind), "quotient")
    if not (na or nb):
        return out
    sa, sb = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_a = t.new(grad.shape, grad.kind, "numerator gradient") if na else None
        to_a = to_a if to_a is None or sa == grad.shape else t.new(sa, grad.kind, "numerator gradient, summed")
        if not nb:
            return to_a, None
        steps = [t.new(grad.shape, grad.kind, "denominator gradient") for _ in range(2)]
        to_b = steps.pop() if sb == grad.shape else t.new(sb, grad.kind, "denominator gradient, summed")
        return to_a, to_b

    return t.record(out, (a, b), saved, backward)


def complex_product(t: Tape, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
    """Complex numbers, each two fp32: the gradient is multiplied by the other factor's conjugate."""
    wide = (*shape, 2)
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((a if nb else None, b if na else None)) if na or nb else []
    out = t.new(wide, FLOAT32, "complex product")
    if not (na or nb):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return new_gradients(t, [wide if needed else None for needed in (na, nb)], FLOAT32, "complex gradient")

    return t.record(out, (a, b), saved, backward)


def in_place(t: Tape, x: Tensor, other: Tensor | None, *, additive: bool) -> Tensor:
    """`x += other`: x's storage; a product in place saves the other factor."""
    if other is not None and additive:
        return add_in_place(t, x, other)
    out = t.view(x, x.shape)
    if not t.needs_grad(x, other):
        return out
    nx, no, shapes = x.node is not None, other is not None and other.node is not None, wanted(other)
    saved = t.save((other if nx else None, x if no else None))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_x = (grad if additive else t.new(grad.shape, grad.kind, "gradient in place")) if nx else None
        return to_x, *new_gradients(t, shapes, grad.kind, "gradient of the other")

    return t.record(out, (x, other), saved, backward)


def overwritten(t: Tape, x: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Some of `x` set in place: its gradient is a copy with that part cleared, theirs are gathered."""
    out = t.view(x, x.shape)
    out.node = x.node
    if not t.needs_grad(x, *others):
        return out
    saved = t.save([other for other in others if other.kind.name not in FLOATS])
    needs, shapes = x.node is not None, wanted(*others)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        own = t.new(grad.shape, grad.kind, "gradient, partly cleared") if needs else None
        return own, *new_gradients(t, shapes, grad.kind, "gradient of what was set")

    return t.record(out, (x, *others), saved, backward)
