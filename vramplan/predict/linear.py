"""Linear layers: 16- or 32-bit, 4-bit, 8-bit."""

from dataclasses import dataclass

from vramplan.errors import UsageError
from vramplan.predict.gemm_4bit import fused_gemm_4bit
from vramplan.predict.operations import cast, scale
from vramplan.predict.operations.gradients import while_summed
from vramplan.predict.tape import BOOL, FLOAT16, FLOAT32, INT8, INT32, Gradients, Kind, Tape, Tensor


@dataclass(frozen=True, slots=True)
class Quantised:
    """How bitsandbytes stores a matrix."""

    bits: int
    block: int
    double: bool
    compute: Kind
    """The element type it multiplies in."""
    origin: Kind
    """The element type the matrix had before: what it is dequantised to in backward."""
    biased: bool
    """Whether a bias is added to the product."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """The two small matrices of LoRA, and what DoRA trains beside them."""

    a: Tensor
    b: Tensor
    dropout: bool
    """Whether a module for dropout is there, which DoRA asks about."""
    drops: bool
    """Whether it drops anything."""
    magnitude: Tensor | None
    """DoRA's, one for each output."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One linear layer as it runs: its weight (or how it is quantised) and bias."""

    name: str
    inputs: int
    outputs: int
    weight: Tensor | None
    quantised: Quantised | None
    bias: Tensor | None

    def without_adapter(self, t: Tape, x: Tensor) -> Tensor:
        """The layer's output."""
        if self.quantised is None:
            assert self.weight is not None
            return linear(t, x, self.weight, self.bias, "output")
        if self.quantised.bits == 8:
            return linear_8bit(t, x, self)
        return linear_4bit(t, x, self)

    def dequantised(self, t: Tape) -> Tensor:
        """The matrix in numbers: itself, where it is not quantised."""
        if self.quantised is None:
            assert self.weight is not None
            return self.weight
        if self.quantised.bits == 8:  # backends/default/ops.py: `A * stats.view(-1, 1) * 7.874015718698502e-3`
            return scale(t, t.new((self.outputs, self.inputs), FLOAT32, "integers times constants"), "dequantised")
        return _dequantised(t, self, self.quantised, self.quantised.origin)


def lowered(t: Tape, x: Tensor, label: str) -> Tensor:
    """What autocast hands to a matrix product: a copy in its type; copies of fp32 leaves are kept.

    ATen/autocast_mode.cpp `cached_cast`: only leaves that require gradients are cached until the region ends: trained
    parameters, the embedding's output under checkpoints, what a reentrant checkpoint runs a layer on. The cache refers
    to the leaf too, and weakly: that alone keeps its memory (seen in torch 2.13).
    """
    kind = t.autocast
    if kind is None or x.kind is kind:
        return x
    if x.kind is not FLOAT32 or not x.is_leaf:
        return cast(t, x, kind, label)
    if id(x) not in t.casts:
        t.casts[id(x)] = x, cast(t, x, kind, label)
    return t.casts[id(x)][1]


def linear(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, label: str) -> Tensor:
    """`F.linear` with a floating weight [out, in]: saves x for the weight's gradient, the weight for x's.

    `matmul` makes the rows of more than two dimensions a matrix by a view, so that x's gradient is a view too.
    """
    if t.autocast is not None:  # C++ evaluates the arguments from the last to the first
        bias = None if bias is None else lowered(t, bias, "bias cast")
        weight = lowered(t, weight, "weight cast")
        x = lowered(t, x, "input cast")
    nx, nw = t.needs_grad(x), t.needs_grad(weight)
    nb = t.needs_grad(bias)
    saved = t.save((x if nw else None, weight if nx else None)) if nx or nw else []
    out = t.new((*x.shape[:-1], weight.shape[0]), x.kind, label)
    t.product(biased=bias is not None)
    if not (nx or nw or nb):
        return out
    shape, weight_shape, weight_kind, biased = x.shape, weight.shape, weight.kind, bias is not None

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # derivatives come in the order of their names: mm's `mat2` before `self`; addmm's `mat1`, `mat2`, `self`
        to_weight = t.new(weight_shape, weight_kind, label + ": weight gradient") if nw and not biased else None
        if to_weight is not None:
            t.product()
        to_x = t.new(shape, grad.kind, label + ": input gradient") if nx else None
        t.product()
        if to_x is not None and len(shape) > 2:
            to_x = t.view(to_x, shape)
        if nw and biased:
            to_weight = t.new(weight_shape, weight_kind, label + ": weight gradient")
        # made transposed: where embeddings are tied, the other gradient is not added into it
        to_weight = None if to_weight is None else t.view(to_weight, weight_shape)
        to_bias = None
        if nb:
            to_bias = t.new((weight_shape[0],), grad.kind, "bias gradient")
            while_summed(t, grad)
        return to_x, to_weight, to_bias

    return t.record(out, (x, weight, bias), saved, backward)


def linear_4bit(t: Tape, x: Tensor, layer: Layer) -> Tensor:
    """bitsandbytes 0.50 `Linear4bit.forward`: input to the compute type, product, back to the input's type.

    `MatMul4Bit` saves no activation. Backward dequantises the matrix, always.
    """
    quantised = layer.quantised
    assert quantised is not None
    x16 = cast(t, x, quantised.compute, "input cast")
    out = _gemm_4bit(t, x16, layer, quantised)
    if not t.needs_grad(x16):
        return cast(t, out, x.kind, "output cast")
    shape = x16.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        matrix = _dequantised(t, layer, quantised, grad.kind)
        result = t.new(shape, grad.kind, "input gradient")
        t.product()
        del matrix
        return (result,)

    t.record(out, (x16,), [], backward)
    return cast(t, out, x.kind, "output cast")


def _blocks(layer: Layer, quantised: Quantised) -> int:
    return -(-layer.inputs * layer.outputs // quantised.block)


def _gemm_4bit(t: Tape, x: Tensor, layer: Layer, quantised: Quantised) -> Tensor:
    """`gemm_4bit` (backends/cuda/ops.py, backends/default/ops.py): fused, or the whole matrix dequantised first."""
    shape = (*x.shape[:-1], layer.outputs)
    rows = x.numel // layer.inputs
    if t.cuda and fused_gemm_4bit(
        t.capability, t.processors, x.kind.name, rows, layer.outputs, layer.inputs, quantised.block
    ):
        return t.new(shape, x.kind, "output")
    constants = _block_constants(t, layer, quantised) if quantised.double else None
    matrix = t.new((layer.outputs, layer.inputs), x.kind, "dequantised")
    copies = _recast(t, x, layer, quantised)
    out = t.new(shape, t.autocast or x.kind, "output")
    t.product(biased=quantised.biased)
    del copies, matrix, constants
    return out


def _recast(t: Tape, x: Tensor, layer: Layer, quantised: Quantised) -> list[Tensor]:
    """What autocast makes of the `F.linear` inside the kernel where bitsandbytes computes in another type than it."""
    kind = t.autocast
    if kind is None or kind is x.kind:
        return []
    bias = [t.new((layer.outputs,), kind, "bias cast once more")] if quantised.biased else []
    weight = t.new((layer.outputs, layer.inputs), kind, "dequantised, cast once more")
    return [*bias, weight, t.new(x.shape, kind, "input cast once more")]


def _block_constants(t: Tape, layer: Layer, quantised: Quantised) -> list[Tensor]:
    """Double quantisation's block constants in fp32, then with their offset added."""
    blocks = (_blocks(layer, quantised),)
    bare = t.new(blocks, FLOAT32, "block constants")
    shifted = t.new(blocks, FLOAT32, "block constants with offset")
    return [bare, shifted] if t.cuda else [shifted]  # a local of the CUDA code, an expression elsewhere


def _dequantised(t: Tape, layer: Layer, quantised: Quantised, kind: Kind) -> Tensor:
    """`F.dequantize_4bit(...).to(grad.dtype)`: made in the matrix's original type, then cast."""
    constants = t.new((_blocks(layer, quantised),), FLOAT32, "block constants") if quantised.double else None
    matrix = t.new((layer.outputs, layer.inputs), quantised.origin, "dequantised")
    del constants
    return cast(t, matrix, kind, "dequantised, cast")


def linear_8bit(t: Tape, x: Tensor, layer: Layer) -> Tensor:
    """bitsandbytes 0.50 `MatMul8bitLt` (CUDA) and `MatMul8bitFp` (CPU).

    Both keep the input on the context itself: a checkpoint does not see it, it lives as long as the graph. A UsageError
    for an input that bitsandbytes refuses (backends/cuda/ops.py `_int8_linear_matmul_impl`), as DeepSeek's latents are.
    """
    if t.cuda and len(x.shape) > 3:
        raise UsageError(
            f"int8: bitsandbytes multiplies inputs of two or three dimensions, and a layer here gets {len(x.shape)}",
            hint="quantise to nf4 instead",
        )
    if layer.bias is not None:  # nn/modules.py Linear8bitLt.forward: `self.bias.data = self.bias.data.to(x.dtype)`
        layer.bias.kind = x.kind
    held = t.detach(x)
    dequantises = not t.cuda and t.training  # `matmul` of autograd/_functions.py
    out = _dequantised_product(t, held, layer) if dequantises else _scaled_int8(t, held, layer)
    if not t.needs_grad(x):
        return out
    shape, kind = x.shape, x.kind

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        matrix = _dequantised_int8(t, layer, kind)
        wide = cast(t, t.detach(grad), kind, "gradient cast")
        result = t.new(shape, kind, "input gradient")
        del matrix, wide
        return (t.view(result, shape),)  # `.view(ctx.grad_shape)`

    t.record(out, (x,), [], backward)
    assert out.node is not None
    out.node.kept = held
    return out


def _dequantised_int8(t: Tape, layer: Layer, kind: Kind) -> Tensor:
    """`CB.to(kind).mul_(constants)`; the CPU multiplies 16-bit values by fp32 constants in fp32 copies."""
    matrix = t.new((layer.outputs, layer.inputs), kind, "dequantised")
    if kind is not FLOAT32 and not t.cuda:
        both = [t.new((layer.outputs, layer.inputs), FLOAT32, what) for what in ("operand fp32", "result fp32")]
        del both
    return matrix


def _dequantised_product(t: Tape, x: Tensor, layer: Layer) -> Tensor:
    """The CPU's way: the whole matrix, then an ordinary product (which autocast sees)."""
    matrix = _dequantised_int8(t, layer, x.kind)
    weight = lowered(t, matrix, "dequantised, cast")
    low = lowered(t, x, "input cast")
    out = t.new((*x.shape[:-1], layer.outputs), low.kind, "output")
    del matrix, weight, low
    return out


def _scaled_int8(t: Tape, x: Tensor, layer: Layer) -> Tensor:
    """Input to fp16, to int8 with one constant per row; the product in int32, scaled to fp16, to the input's type."""
    rows = x.numel // layer.inputs
    half = cast(t, x, FLOAT16, "input fp16")
    constants = t.new((rows,), FLOAT32, "row constants")
    quantised = t.new((rows, layer.inputs), INT8, "input int8")
    _outliers(t, half)
    del half
    product = t.new((rows, layer.outputs), INT32, "int32 product")
    scaled = None if t.cuda else _scaled_on_cpu(t, (rows, layer.outputs))
    out = t.new((*x.shape[:-1], layer.outputs), FLOAT16, "output fp16")
    del scaled
    out = cast(t, out, x.kind, "output")
    del product, quantised, constants
    return out


def _scaled_on_cpu(t: Tape, shape: tuple[int, int]) -> Tensor:
    """backends/default/ops.py int8_mm_dequant: `A * (rows * columns) * (1 / 127 ** 2)` in fp32; a kernel on a card."""
    scales = t.new(shape, FLOAT32, "constants of rows times columns")
    widened = t.new(shape, FLOAT32, "int32 product as fp32")  # inside the CPU's kernel (ATen/TensorIterator.cpp)
    product = t.new(shape, FLOAT32, "product in fp32")
    del scales, widened
    scaled = t.new(shape, FLOAT32, "output fp32")
    del product
    return scaled


def _outliers(t: Tape, half: Tensor) -> None:
    """`A.abs() >= threshold`: which columns hold large values (transformers' threshold is 6)."""
    magnitudes = t.new(half.shape, FLOAT16, "magnitudes")
    large = t.new(half.shape, BOOL, "large values")
    del magnitudes, large
