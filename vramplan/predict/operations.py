"""The operations that layers are made of: what each allocates, what it saves for backward, what its backward allocates.

Formulas: torch/tools/autograd/derivatives.yaml and FunctionsManual.cpp (2.13). Names follow torch.
"""

from typing import overload

from vramplan.predict.tape import BOOL, FLOAT16, FLOAT32, Gradients, Kind, Shape, Tape, Tensor


def reshape(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A view with other dimensions (also transposes): shares the storage, saves nothing; so does its gradient.

    Unless heads that lie apart in memory become one dimension: `view`'s backward is `grad.reshape`, which then copies.
    """
    out = t.view(x, shape)
    if not t.needs_grad(x):
        return out
    before = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        if grad.heads_first and len(before) < len(shape) and shape[-2] > 1:
            return (t.new(before, grad.kind, "gradient laid out anew"),)
        return (t.view(grad, before),)

    return t.record(out, (x,), [], backward)


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


def _reduced(t: Tape, grad: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """The gradient summed over the dimensions that were broadcast."""
    return grad if grad.shape == shape else t.new(shape, grad.kind, "gradient summed over broadcast dimensions")


def add(t: Tape, a: Tensor, b: Tensor, label: str = "sum") -> Tensor:
    """`a + b`: saves nothing; both get the same gradient."""
    out = _result(t, a, b, label)
    if not t.needs_grad(a, b):
        return out
    sa, sb, ka, kb, na, nb = a.shape, b.shape, a.kind, b.kind, a.node is not None, b.node is not None

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (
            _reduced(t, grad, sa, ka) if na else None,
            _reduced(t, grad, sb, kb) if nb else None,
        )

    return t.record(out, (a, b), [], backward)


def subtract(t: Tape, a: Tensor, b: Tensor, label: str = "difference") -> Tensor:
    """`a - b`: saves nothing; a gets the gradient itself, b its negative."""
    out = _result(t, a, b, label)
    if not t.needs_grad(a, b):
        return out
    sa, sb, ka, kb, na, nb = a.shape, b.shape, a.kind, b.kind, a.node is not None, b.node is not None

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        negative = t.like(grad, grad.kind, label + ": negative gradient") if nb else None
        to_a = _reduced(t, grad, sa, ka) if na else None
        return to_a, None if negative is None else _reduced(t, negative, sb, kb)

    return t.record(out, (a, b), [], backward)


def add_in_place(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a += b`: a's storage; both get the same gradient."""
    out = t.view(a, a.shape)
    return t.record(out, (a, b), [], lambda saved, grad: (grad, grad)) if t.needs_grad(a, b) else out


def mul(t: Tape, a: Tensor, b: Tensor, label: str = "product") -> Tensor:
    """`a * b`: each saves the other, if it needs a gradient."""
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((a if nb else None, b if na else None)) if na or nb else []
    out = _result(t, a, b, label)
    if not (na or nb):
        return out
    sa, sb, ka, kb = a.shape, b.shape, a.kind, b.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # derivatives are computed in the order of their names, `other` before `self`
        full_b = t.like(grad, grad.kind, "product gradient") if nb else None
        full_a = t.like(grad, grad.kind, "product gradient") if na else None
        ga = None if full_a is None else _reduced(t, full_a, sa, ka)
        full_a = None
        return ga, None if full_b is None else _reduced(t, full_b, sb, kb)

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


def pointwise(t: Tape, x: Tensor, label: str, *, saves: str, temporaries: int = 0, kind: Kind | None = None) -> Tensor:
    """A function of each element that saves its input, its result (`saves`), and makes its gradient in one kernel.

    `temporaries` full-size tensors exist besides while the gradient is computed.
    """
    grad_needed = t.needs_grad(x)
    saved = t.save((x,)) if grad_needed and saves == "input" else []
    out = t.new(x.shape, kind or x.kind, label)
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


def square(t: Tape, x: Tensor) -> Tensor:
    """`x.pow(2)`: saves x; backward is `grad * (2 * x.pow(1))`: two factors exist besides the gradient."""
    return pointwise(t, x, "square", saves="input", temporaries=2)


def mean(t: Tape, x: Tensor) -> Tensor:
    """`x.mean(-1, keepdim=True)`: saves nothing; the gradient is expanded, then divided into a full tensor."""
    out = t.new((*x.shape[:-1], 1), x.kind, "mean")
    if not t.needs_grad(x):
        return out
    shape = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.new(shape, grad.kind, "mean gradient"),)

    return t.record(out, (x,), [], backward)


def rms_norm(
    t: Tape, x: Tensor, weight: Tensor | None, *, upcast_weight: bool = False, shifted: bool = False
) -> Tensor:
    """LlamaRMSNorm and its kin, written out in Python: fp32 inside, back to the input's type, times weight.

    `upcast_weight` multiplies in fp32 and casts last (Gemma, OLMo 2); `shifted` uses `1 + weight` (Gemma).
    """
    wide = cast(t, x, FLOAT32, "norm input fp32")
    variance = mean(t, square(t, wide))
    normed = mul(
        t, wide, pointwise(t, shift(t, variance, "variance"), "rsqrt", saves="result", temporaries=2), "normed"
    )
    del wide
    if weight is None:
        return cast(t, normed, x.kind)
    if upcast_weight:
        factor = cast(t, weight, FLOAT32, "norm weight fp32")
        if shifted:
            factor = shift(t, factor, "1 + norm weight")
            normed = mul(t, normed, factor, "norm output fp32")  # Gemma's variable of the same name
            return cast(t, normed, x.kind, "norm output")
        return cast(t, mul(t, normed, factor, "norm output fp32"), x.kind, "norm output")
    narrow = cast(t, normed, x.kind, "normed")
    return mul(t, weight, narrow, "norm output")


def layer_norm(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, label: str = "norm output") -> Tensor:
    """`nn.LayerNorm`, one kernel: saves x, the mean and the reciprocal deviation of each row."""
    bias, weight, x = raised(t, bias), raised(t, weight), raised(t, x)
    grad_needed = t.needs_grad(x, weight, bias)
    kind = wider(x.kind, weight.kind)
    saved = t.save((x, weight)) if grad_needed else []
    out = t.new(x.shape, x.kind, label)
    rows = (*x.shape[:-1], 1)
    statistics = [t.new(rows, kind if not t.cuda else FLOAT32, what) for what in ("norm mean", "norm rstd")]
    if not grad_needed:
        return out
    saved += t.save(statistics)
    nx, nw, nb = x.node is not None, weight.node is not None, bias is not None and bias.node is not None
    shape, weight_shape, weight_kind = x.shape, weight.shape, weight.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (
            t.new(shape, grad.kind, "norm gradient") if nx else None,
            t.new(weight_shape, weight_kind, "norm weight gradient") if nw else None,
            t.new(weight_shape, weight_kind, "norm bias gradient") if nb else None,
        )

    return t.record(out, (x, weight, bias), saved, backward)


def matmul(t: Tape, a: Tensor, b: Tensor, label: str, *, saved_a: Tensor | None = None) -> Tensor:
    """Batched `a @ b`: saves both as far as the other needs a gradient; each gradient is a product of its own."""
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save(((saved_a or a) if nb else None, b if na else None)) if na or nb else []
    out = t.new((*a.shape[:-1], b.shape[-1]), a.kind, label)
    if not (na or nb):
        return out
    sa, sb = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        right = t.new(sb, grad.kind, label + " gradient (right)") if nb else None
        return t.new(sa, grad.kind, label + " gradient (left)") if na else None, right

    return t.record(out, (a, b), saved, backward)


def softmax(t: Tape, x: Tensor, kind: Kind) -> Tensor:
    """`softmax(x, -1, dtype=kind)`: saves its result; on CUDA the backward kernel makes `grad * output` first.

    SoftMax.cpp: only fp16 to fp32 on CUDA is one kernel; everything else is converted first, by a copy.
    """
    if not (t.cuda and x.kind is FLOAT16 and kind is FLOAT32):
        x = cast(t, x, kind, "softmax input cast")
    out = t.new(x.shape, kind, "softmax")
    if not t.needs_grad(x):
        return out
    saved = t.save((out,))
    before = x.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        result = t.like(grad, before, "softmax gradient")  # SoftMax.cu's kernel finds its output made
        product = t.like(grad, grad.kind, "softmax gradient times output") if t.cuda else None
        del product
        return (result,)

    return t.record(out, (x,), saved, backward)


def narrow(t: Tape, x: Tensor, size: int) -> Tensor:
    """A slice of the last dimension: a view; its gradient is a full tensor of zeros with the slice filled in."""
    out = t.view(x, (*x.shape[:-1], size))
    if not t.needs_grad(x):
        return out
    shape = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        zeros = t.new(shape, grad.kind, "slice gradient")
        zeros.heads_first = len(shape) == 4
        return (zeros,)

    return t.record(out, (x,), [], backward)


def cat(t: Tape, pieces: list[Tensor], label: str = "concatenation") -> Tensor:
    """Concatenation along the last dimension: a copy; the gradients are views of the incoming one."""
    out = t.new((*pieces[0].shape[:-1], sum(piece.shape[-1] for piece in pieces)), pieces[0].kind, label)
    if not t.needs_grad(*pieces):
        return out
    shapes = [piece.shape for piece in pieces]

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return [t.view(grad, shape) for shape in shapes]

    return t.record(out, pieces, [], backward)


def split(t: Tape, x: Tensor, sizes: list[int]) -> list[Tensor]:
    """`x.split(sizes, -1)`: views; backward concatenates the gradients once all of them are there."""
    return split_into(t, x, [(*x.shape[:-1], size) for size in sizes])


def split_rows(t: Tape, x: Tensor, rows: int) -> list[Tensor]:
    """`x.split(rows)`: the same along the first dimension."""
    counts = [min(rows, x.shape[0] - start) for start in range(0, x.shape[0], rows)]
    return split_into(t, x, [(count, *x.shape[1:]) for count in counts])


def split_into(t: Tape, x: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Views that add up to the whole; backward concatenates their gradients once all of them are there."""
    pieces = [t.view(x, piece) for piece in shapes]
    if not t.needs_grad(x):
        return pieces
    shape = x.shape
    slots: list[Tensor] = []

    def gather(saved: list[Tensor], grad: Tensor) -> Gradients:
        whole = t.new(shape, slots[0].kind, "split gradient")
        whole.heads_first = len(shape) == 4
        slots.clear()
        return (whole,)

    def piece_backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        slots.append(grad)
        return (None,)

    whole = t.record(t.view(x, shape), (x,), [], gather)
    for piece in pieces:
        t.record(piece, (whole,), [], piece_backward)
    return pieces


def dropout(t: Tape, x: Tensor) -> Tensor:
    """Active dropout: CUDA's fused kernel keeps a 1-byte mask, the CPU a noise tensor of the input's type."""
    out = t.new(x.shape, x.kind, "dropout output") if t.cuda else None
    mask = t.new(x.shape, BOOL if t.cuda else x.kind, "dropout mask")
    if out is None:
        out = t.new(x.shape, x.kind, "dropout output")
    if not t.needs_grad(x):
        return out
    saved = t.save((mask,))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.like(grad, grad.kind, "dropout gradient"),)

    return t.record(out, (x,), saved, backward)
