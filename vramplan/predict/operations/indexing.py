"""What picks elements or rows: by bounds, by order, by index, by a mask, by expert."""

from collections.abc import Sequence

from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.operations.products import product
from vramplan.predict.tape import BOOL, INT64, Gradients, Kind, Shape, Tape, Tensor


def clamp(t: Tape, x: Tensor, bounds: int, kind: Kind, label: str = "clamped") -> Tensor:
    """`clamp`: saves its input; `clamp_backward` (FunctionsManual.cpp) compares it with every bound, then selects."""
    saved = saved_for(t, x, x)
    out = t.new(x.shape, kind, label)
    if not t.needs_grad(x):
        return out
    shape = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        inside = [t.new(shape, BOOL, label + ": inside the bound") for _ in range(bounds)]
        result = t.new(shape, grad.kind, label + " gradient")
        del inside
        return (result,)

    return t.record(out, (x,), saved, backward)


def topk(
    t: Tape, x: Tensor, shape: Shape, label: str = "chosen", *, keeps_input: bool = False
) -> tuple[Tensor, Tensor]:
    """`topk`, also `sort`: saves the indices, `cummax` its input too; the gradient is scattered into zeros."""
    saved = saved_for(t, x, x) if keeps_input else []
    values, indices = t.new(shape, x.kind, label), t.new(shape, INT64, "indices of the " + label)
    return own_gradient(t, x, values, "gradient of the " + label, saved + saved_for(t, x, indices)), indices


def gather(
    t: Tape, x: Tensor, indices: Sequence[Tensor], shape: Shape, label: str = "gathered", *, keeps_input: bool = False
) -> Tensor:
    """`x[indices]`: saves the indices, `gather` its input too; the gradient is added into zeros of x's shape."""
    saved = saved_for(t, x, *((x,) if keeps_input else ()), *indices)
    return own_gradient(t, x, t.new(shape, x.kind, label), label + " gradient", saved)


def masked_fill(t: Tape, x: Tensor, mask: Tensor, *, in_place: bool = False) -> Tensor:
    """A filled copy, or `x` itself filled: saves the mask; the gradient is a filled copy."""
    saved = saved_for(t, x, mask)
    out = t.view(x, x.shape) if in_place else t.new(x.shape, x.kind, "masked copy")
    return own_gradient(t, x, out, "masked gradient", saved)


def grouped_product(t: Tape, x: Tensor, weight: Tensor, offsets: Sequence[Tensor], shape: Shape) -> Tensor:
    """`grouped_mm`, each expert's rows by its own matrix."""
    labels = "experts' input gradient", "experts' gradient"
    return product(t, x, weight, shape, "experts' product", gradients=labels, beside=offsets)
