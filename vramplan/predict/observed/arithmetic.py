"""Sums, differences, products and quotients, also those of complex numbers."""

from vramplan.predict.operations.gradients import new_gradients, summed
from vramplan.predict.tape import FLOAT32, Gradients, Kind, Shape, Tape, Tensor


def binary(t: Tape, word: str, a: Tensor, b: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """`add`, `sub`, `mul` or `div`: a factor is saved for the other's gradient, a denominator also for its own."""
    na, nb = t.needs_grad(a), t.needs_grad(b)
    wanted_a, wanted_b = nb and word in ("mul", "div"), word == "div" or (na and word == "mul")
    saved = t.save((a if wanted_a else None, b if wanted_b else None)) if na or nb else []
    out = t.new(shape, kind, word)
    if not t.cuda:  # TensorIterator; on CUDA the kernel converts
        [t.new(x.shape, kind, "operand converted") for x in (a, b) if x.shape and x.kind is not kind]
    if not (na or nb):
        return out
    shapes = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_b = _right_gradient(t, word, grad) if nb else None  # `other` before `self`
        to_a = (t.like(grad, kind, f"{word}: gradient") if word in ("mul", "div") else grad) if na else None
        made = [to_a, to_b]
        del to_a, to_b
        for i, each in enumerate(shapes):
            made[i] = summed(t, made[i], each)
        return made

    return t.record(out, (a, b), saved, backward)


def _right_gradient(t: Tape, word: str, grad: Tensor) -> Tensor:
    """Of `other`: the incoming one, its negative, times the first factor, or `-grad * ((a / b) / b)`."""
    if word == "add":
        return grad
    count = 3 if word == "div" else 0
    steps = [t.like(grad, grad.kind, "denominator gradient temporary") for _ in range(count)]
    made = t.like(grad, grad.kind, f"{word}: other gradient")
    del steps
    return made


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
