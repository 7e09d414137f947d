"""Matrix products of whatever shape, convolutions."""

from vramplan.predict.linear import lowered
from vramplan.predict.operations import add_in_place, clone
from vramplan.predict.operations.gradients import new_gradients, own_gradient, summed, wanted
from vramplan.predict.tape import Gradients, Shape, Tape, Tensor


def matmul(
    t: Tape, a: Tensor, b: Tensor, shape: Shape, copied_a: Shape, copied_b: Shape, *, left_first: bool
) -> Tensor:
    """A product of matrices, autocast's copies and those of operands that cannot be batched as they lie first.

    Autocast casts in the call's argument list, which compilers for x86 evaluate from the last to the first
    (autocast_mode.h), and its copies live until the call is over.
    """
    right = lowered(t, b, "operand cast")
    left = lowered(t, a, "operand cast")
    a, b = (_laid_out(t, x, copied) for x, copied in ((left, copied_a), (right, copied_b)))
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((a if nb else None, b if na else None)) if na or nb else []
    out = t.new(shape, a.kind, "product")
    t.product()
    if not (na or nb):
        return out
    shapes = wanted(a, b)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        order = 1 if left_first else -1
        made = new_gradients(t, shapes[::order], grad.kind, "product's gradient")[::order]
        t.product()
        return [None if each is None else t.view(each, each.shape) for each in made]

    return t.record(out, (a, b), saved, backward)


def _laid_out(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """An operand of a batched product, copied and repeated as far as it has to be; not at all without a shape."""
    if not shape:
        return x
    if shape == x.shape:
        return clone(t, x, "operand of a batched product")
    repeated = t.new(shape, x.kind, "operand of a batched product")
    return own_gradient(t, x, repeated, "gradient summed over what was repeated")


def added_in_product(t: Tape, product: Tensor, bias: Tensor) -> Tensor:
    """`baddbmm`: the sum is the product's own memory."""
    return add_in_place(t, product, bias) if t.needs_grad(bias) else product


def solved(t: Tape, matrix: Tensor, right: Tensor, shape: Shape) -> Tensor:
    """`solve_triangular` saves the matrix and its result; the matrix' gradient is a product, its negative, and a
    triangle of that (FunctionsManual.cpp `linalg_solve_triangular_backward`)."""
    nm, nr = t.needs_grad(matrix), t.needs_grad(right)
    saved = t.save((matrix,)) if nm or nr else []
    out = t.new(shape, right.kind, "solution")
    if not (nm or nr):
        return out
    saved += t.save((out,))
    wanted_matrix, wanted_right = wanted(matrix, right)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_right = t.new(shape, grad.kind, "gradient of the right side")
        to_matrix = None
        if wanted_matrix is not None:
            full = t.new((*shape[:-2], *wanted_matrix[-2:]), grad.kind, "product's gradient")
            for step in ("negative", "triangle"):
                full = t.new(full.shape, full.kind, f"product's gradient, {step}")
            to_matrix = summed(t, full, wanted_matrix)
        return to_matrix, summed(t, to_right, wanted_right) if nr else None

    return t.record(out, (matrix, right), saved, backward)


def convolved(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """`F.conv1d` saves input and weight; the workspace that cuDNN chooses is not known."""
    x, weight = lowered(t, x, "input cast"), lowered(t, weight, "weight cast")
    t.doubts.add("a convolution's workspace")
    grad_needed = t.needs_grad(x, weight, bias)
    saved = t.save((x, weight)) if grad_needed else []
    out = t.new(shape, x.kind, "convolution")
    if not grad_needed:
        return out
    shapes = wanted(x, weight, bias)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return new_gradients(t, shapes, grad.kind, "convolution gradient")

    return t.record(out, (x, weight, bias), saved, backward)
