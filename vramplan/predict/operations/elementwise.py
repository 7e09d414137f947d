"""Operations element by element: copies and casts, sums and products, functions of one tensor, dropout."""

from typing import overload

from vramplan.architecture.observed.observer import Saves
from vramplan.predict.operations.gradients import saved_for, summed, wanted
from vramplan.predict.tape import BOOL, FLOAT32, Gradients, Kind, Shape, Tape, Tensor


def cast(t: Tape, x: Tensor, kind: Kind, label: str = "cast") -> Tensor:
    """`x.to(kind)`: itself when it already is, else a copy; saves nothing, the gradient is cast back."""
    if x.kind is kind:
        return x
    out = t.new(x.shape, kind, label)
    if not t.needs_grad(x):
        return out
    before = x.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.like(grad, before, label + " gradient"),)

    return t.record(out, (x,), [], backward)


@overload
def raised(t: Tape, x: Tensor) -> Tensor: ...
@overload
def raised(t: Tape, x: None) -> None: ...
def raised(t: Tape, x: Tensor | None) -> Tensor | None:
    """What CUDA's autocast hands to an operation that it runs in fp32 (autocast_mode.h AT_FORALL_FP32); the CPU's list
    has none of those that a language model runs."""
    if x is None or t.autocast is None or not t.cuda:
        return x
    return cast(t, x, FLOAT32, "made fp32 by autocast")


def clone(t: Tape, x: Tensor, label: str = "copy") -> Tensor:
    """A copy (`clone`, `contiguous` of something that is not); saves nothing, the gradient passes through."""
    out = t.new(x.shape, x.kind, label)
    if not t.needs_grad(x):
        return out
    return t.record(out, (x,), [], lambda saved, grad: (grad,))


def wider(a: Kind, b: Kind) -> Kind:
    """The element type of an operation on two tensors (both with dimensions)."""
    return a if a is b or a.bytes > b.bytes else (b if b.bytes > a.bytes else FLOAT32)


def _broadcast(a: Shape, b: Shape) -> Shape:
    if a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    b = (1,) * (len(a) - len(b)) + b
    return tuple(max(x, y) for x, y in zip(a, b, strict=True))


def _result(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """The output; operands of another type are converted first on the CPU (TensorIterator), in the kernel on CUDA."""
    out = t.new(_broadcast(a.shape, b.shape), wider(a.kind, b.kind), label)
    if a.kind is not b.kind and not t.cuda:
        narrower = a if a.kind is not out.kind else b
        t.new(narrower.shape, out.kind, "operand converted")
    return out


def add(t: Tape, a: Tensor, b: Tensor, label: str = "sum") -> Tensor:
    """`a + b`: saves nothing; both get the same gradient."""
    out = _result(t, a, b, label)
    if not t.needs_grad(a, b):
        return out
    shapes = wanted(a, b)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return [None if shape is None else summed(t, grad, shape) for shape in shapes]

    return t.record(out, (a, b), [], backward)


def subtract(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """`a - b`: saves nothing; a gets the gradient itself, b its negative."""
    out = _result(t, a, b, label)
    if not t.needs_grad(a, b):
        return out
    wanted_a, wanted_b = wanted(a, b)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        negative = t.like(grad, grad.kind, label + ": negative gradient") if wanted_b is not None else None
        return None if wanted_a is None else summed(t, grad, wanted_a), summed(t, negative, wanted_b)

    return t.record(out, (a, b), [], backward)


def add_in_place(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a += b`: a's storage; both get the same gradient."""
    out = t.view(a, a.shape)
    return t.record(out, (a, b), [], lambda saved, grad: (grad, grad)) if t.needs_grad(a, b) else out


def mul(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """`a * b`: each saves the other, if it needs a gradient."""
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((a if nb else None, b if na else None)) if na or nb else []
    out = _result(t, a, b, label)
    if not (na or nb):
        return out
    sa, sb = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # derivatives are computed in the order of their names, `other` before `self`
        full_b = t.like(grad, grad.kind, "product gradient") if nb else None
        full_a = t.like(grad, grad.kind, "product gradient") if na else None
        saved.clear()  # what a checkpoint computed again is gone when the engine sums up
        ga = summed(t, full_a, sa)
        full_a = None
        return ga, summed(t, full_b, sb)

    return t.record(out, (a, b), saved, backward)


def scale(t: Tape, x: Tensor, label: str = "scaled") -> Tensor:
    """`x * number` (also `x / number`, `-x`): saves nothing, the gradient is scaled into a new tensor."""
    out = t.new(x.shape, x.kind, label)
    if not t.needs_grad(x):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.like(grad, grad.kind, label + " gradient"),)

    return t.record(out, (x,), [], backward)


def shift(t: Tape, x: Tensor, label: str = "shifted") -> Tensor:
    """`x + number`: saves nothing, the gradient passes through."""
    return clone(t, x, label)


def pointwise(t: Tape, x: Tensor, label: str, *, saves: Saves, temporaries: int = 0) -> Tensor:
    """A function of each element, whose gradient is made in one kernel.

    `temporaries` full-size tensors exist besides while the gradient is computed.
    """
    grad_needed = t.needs_grad(x)
    saved = t.save((x,)) if grad_needed and saves == "input" else []
    out = t.new(x.shape, x.kind, label)
    if not grad_needed:
        return out
    if saves == "result":
        saved = t.save((out,))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        extra = [t.like(grad, grad.kind, label + " gradient temporary") for _ in range(temporaries)]
        result = t.like(grad, grad.kind, label + " gradient")
        del extra
        return (result,)

    return t.record(out, (x,), saved, backward)


def dropout(t: Tape, x: Tensor) -> Tensor:
    """Active dropout: CUDA's fused kernel makes and keeps a 1-byte mask, the CPU multiplies with a noise tensor of the
    input's type, which that product saves."""
    mask = t.new(x.shape, BOOL if t.cuda else x.kind, "dropout mask")
    saved = [] if t.cuda else saved_for(t, x, mask)
    out = t.new(x.shape, x.kind, "dropout output")
    if not t.needs_grad(x):
        return out
    saved += t.save((mask,)) if t.cuda else []

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.like(grad, grad.kind, "dropout gradient"),)

    return t.record(out, (x,), saved, backward)
