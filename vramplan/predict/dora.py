"""DoRA around a linear layer: the adapted matrix's norms are computed anew in every forward (arXiv:2402.09353).

peft 0.21.2 tuners/lora/dora.py `DoraLinearLayer` and variants.py `DoraLinearVariant`. The matrix is dequantised, and
B @ A is made by sending an identity of [in, in] through both factors; none of that is needed in backward, but where
a dropout module makes the layer multiply by the dequantised matrix once more.
"""

from vramplan.predict.linear import Adapter, Layer, linear
from vramplan.predict.operations import add, cast, dropout, mul, reshape, scale, shift, subtract
from vramplan.predict.operations.elementwise import wider
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import FLOAT32, Tape, Tensor


def with_dora(t: Tape, x: Tensor, result: Tensor, layer: Layer, adapter: Adapter) -> Tensor:
    """The layer's output with its adapter's, of the `result` without; `x` has the adapter's type where peft casts."""
    if adapter.drops:
        x = dropout(t, x)
    base = None if adapter.dropout else result
    return add(t, result, _difference(t, x, base, layer, adapter), "output with adapter")


def _difference(t: Tape, x: Tensor, base: Tensor | None, layer: Layer, adapter: Adapter) -> Tensor:
    """`DoraLinearLayer.forward`; its locals live until it returns."""
    delta = cast(t, _lora_weight(t, adapter), x.kind, "lora_B @ lora_A, cast")
    matrix = cast(t, layer.dequantised(t), x.kind, "matrix, cast")
    norm = _weight_norm(t, matrix, t.detach(delta))
    magnitude = _quotient(t, adapter.magnitude, norm)
    low = linear(t, linear(t, x, adapter.a, None, "lora_A output"), adapter.b, None, "lora_B output")
    if base is None:
        base = linear(t, x, matrix, None, "output of the dropped-out input")
    elif layer.bias is not None:
        base = subtract(t, base, layer.bias, "output less its bias")
    return _sum(t, magnitude, base, low)


def _sum(t: Tape, magnitude: Tensor, base: Tensor, low: Tensor) -> Tensor:
    """`(magnitude - 1) * base + magnitude * low * scaling`."""
    first = mul(t, shift(t, magnitude, "magnitudes less one"), base, "output, stretched")
    second = scale(t, mul(t, magnitude, low, "adapter output, stretched"), "adapter output, scaled")
    return add(t, first, second, "difference")


def _lora_weight(t: Tape, adapter: Adapter) -> Tensor:
    """`get_lora_weight`: `lora_B(lora_A(eye)).T`."""
    inputs = adapter.a.shape[1]
    eye = t.new((inputs, inputs), adapter.a.kind, "identity")
    whole = linear(t, linear(t, eye, adapter.a, None, "lora_A"), adapter.b, None, "lora_B @ lora_A")
    del eye
    return reshape(t, whole, (whole.shape[1], inputs))


def _weight_norm(t: Tape, matrix: Tensor, delta: Tensor) -> Tensor:
    """`get_weight_norm` of what needs no gradient: `norm(matrix + scaling * delta, dim=1)`."""
    adapted = add(t, matrix, scale(t, delta, "lora_B @ lora_A, scaled"), "adapted matrix")
    # CUDA's autocast has `linalg_vector_norm` answer in fp32 (autocast_mode.h AT_FORALL_FP32_SET_OPT_DTYPE)
    kind = adapted.kind if t.autocast is None or not t.cuda else FLOAT32
    norm = t.new((adapted.shape[0],), kind, "norms")
    return cast(t, norm, adapted.kind, "norms, cast")


def _quotient(t: Tape, magnitude: Tensor | None, norm: Tensor) -> Tensor:
    """`(magnitude / norm).view(1, -1)`: saves the norms."""
    assert magnitude is not None, "an adapter of DoRA has magnitudes"
    saved = saved_for(t, magnitude, norm)
    out = t.new(magnitude.shape, wider(magnitude.kind, norm.kind), "magnitudes over norms")
    return reshape(t, own_gradient(t, magnitude, out, "magnitude gradient", saved), (1, *out.shape))
