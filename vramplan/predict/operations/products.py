"""Matrix products of two operands as they are: casts, autocast's too, come before."""

from collections.abc import Sequence

from vramplan.predict.tape import Gradients, Shape, Tape, Tensor


def product(
    t: Tape,
    a: Tensor,
    b: Tensor,
    shape: Shape,
    label: str,
    *,
    gradients: tuple[str, str],
    beside: Sequence[Tensor] = (),
) -> Tensor:
    """`a @ b`: each is saved as far as the other needs a gradient, which is a product of its own; so is what is
    `beside`. `gradients` are their labels."""
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((a if nb else None, b if na else None, *beside)) if na or nb else []
    out = t.new(shape, a.kind, label)
    if not (na or nb):
        return out
    sa, sb = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # derivatives are computed in the order of their names, `mat2` before `self`
        to_b = t.new(sb, grad.kind, gradients[1]) if nb else None
        return t.new(sa, grad.kind, gradients[0]) if na else None, to_b

    return t.record(out, (a, b), saved, backward)
