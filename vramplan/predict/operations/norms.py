"""What reduces rows: norms, written out in Python or one kernel, and the softmax."""

from vramplan.predict.operations.elementwise import cast, mul, pointwise, raised, shift, wider
from vramplan.predict.operations.gradients import own_gradient
from vramplan.predict.tape import FLOAT16, FLOAT32, Gradients, Kind, Tape, Tensor


def square(t: Tape, x: Tensor) -> Tensor:
    """`x.pow(2)`: saves x; backward is `grad * (2 * x.pow(1))`: two factors exist besides the gradient."""
    return pointwise(t, x, "square", saves="input", temporaries=2)


def mean(t: Tape, x: Tensor) -> Tensor:
    """`x.mean(-1, keepdim=True)`: saves nothing; the gradient is expanded, then divided into a full tensor."""
    return own_gradient(t, x, t.new((*x.shape[:-1], 1), x.kind, "mean"), "mean gradient")


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


def layer_norm(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`nn.LayerNorm`, one kernel: saves x, weight, bias, the mean and the reciprocal deviation of each row."""
    bias, weight, x = raised(t, bias), raised(t, weight), raised(t, x)
    grad_needed = t.needs_grad(x, weight, bias)
    kind = wider(x.kind, weight.kind)
    saved = t.save((x, weight, bias)) if grad_needed else []
    out = t.new(x.shape, x.kind, "norm output")
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


def softmax(t: Tape, x: Tensor, kind: Kind) -> Tensor:
    """`softmax(x, -1, dtype=kind)`: saves its result; on CUDA the backward kernel makes `grad * output` first.

    SoftMax.cpp: only fp16 to fp32 on CUDA is one kernel; everything else is converted first, by a copy.
    """
    if not (t.cuda and x.kind is FLOAT16 and kind is FLOAT32):
        x = cast(t, x, kind, "softmax input cast")
    out = t.new(x.shape, kind, "softmax")
    return recorded_softmax(t, x, out)


def recorded_softmax(t: Tape, x: Tensor, out: Tensor) -> Tensor:
    """`out` as the softmax of x, which it is saved for."""
    if not t.needs_grad(x):
        return out
    saved = t.save((out,))
    kind = x.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        result = t.like(grad, kind, "softmax gradient")  # SoftMax.cu's kernel finds its output made
        product = t.like(grad, grad.kind, "softmax gradient times output") if t.cuda else None
        del product
        return (result,)

    return t.record(out, (x,), saved, backward)
