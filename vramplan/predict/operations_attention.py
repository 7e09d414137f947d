"""Attention by `scaled_dot_product_attention`: the kernels behind it, and what transformers does around them.

aten/src/ATen/native/transformers (torch 2.13): attention.cpp, cuda/attention.cu, cuda/attention_backward.cu.
"""

from dataclasses import dataclass

from vramplan.attention import MASK_ALIGNMENT
from vramplan.predict.operations import cast, dropout, recorded_softmax, scale
from vramplan.predict.operations_heads import (
    batched,
    dense,
    heads_last,
    repeat_interleave,
    repeat_kv,
    repeated,
    transposed,
)
from vramplan.predict.projections import lowered
from vramplan.predict.tape import BOOL, FLOAT32, INT64, Gradients, Kind, Tape, Tensor
from vramplan.predict.template import Padded


@dataclass(frozen=True, slots=True)
class Heads:
    """How queries meet keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    softcap: bool = False
    dropout: bool = False
    broadcasts: bool = False
    """Whether fewer key heads are left to the matrix product's broadcasting (Falcon)."""
    heads_first: bool = False
    """Whether queries and keys lie in memory as [batch, heads, seq, dim] (after a concatenation) and not seq first."""

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key head."""
        return self.heads != self.kv_heads


def sdpa(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, backend: str) -> Tensor:
    """`sdpa_attention_forward`: the kernel that `backend` names (flash, efficient, cudnn, math)."""
    expands = mask is not None or spec.head_dim != spec.value_dim or spec.head_dim > 256  # `use_gqa_in_sdpa`
    if backend == "flash_attention_2":  # modeling_flash_attention_utils.py casts itself
        query, key, value = (lowered(t, x, what) for x, what in ((query, "query"), (key, "key"), (value, "value")))
    elif expands and not spec.broadcasts:
        key, value = repeat_kv(t, key, spec.heads), repeat_kv(t, value, spec.heads)
    out = _called(t, query, key, value, mask, spec, backend)
    if backend == "math":
        return heads_last(t, out, copy=True)
    # flash: `empty_like(query)`, which keeps the query's layout; efficient: always sequence first
    return heads_last(t, out, copy=spec.heads_first and backend != "efficient")


def _called(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, backend: str
) -> Tensor:
    """The operation as autocast wraps it: what it casts goes when the kernel has returned, what is repeated stays."""
    value, key, query = (lowered(t, x, what) for x, what in ((value, "value"), (key, "key"), (query, "query")))
    if backend == "efficient" and not spec.broadcasts:  # pinned: it knows no grouped heads
        key, value = repeat_kv(t, key, spec.heads), repeat_kv(t, value, spec.heads)
    return kernel(t, query, key, value, mask, spec, backend)


def kernel(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, backend: str
) -> Tensor:
    """`scaled_dot_product_attention` itself, on what autocast has cast: [batch, heads, seq, dim]."""
    if backend != "math":
        return fused(t, query, key, value, mask, backend)
    autocast, t.autocast = t.autocast, None  # what autocast has cast once it does not see again inside
    out = _math(t, query, key, value, mask, spec)
    t.autocast = autocast
    return out


def fused(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, backend: str) -> Tensor:
    """One kernel: saves query, key, value, its output and the log-sum-exp of each row."""
    batch, heads, seq, dim = query.shape
    grad_needed = t.needs_grad(query, key, value)
    bias = None if mask is None else _bias(t, (batch, seq), query.kind, backend)
    saved = t.save((query, key, value, bias)) if grad_needed else []
    out = t.new((*query.shape[:-1], value.shape[-1]), query.kind, "attention output")
    rows = Padded.of(seq, 32) if backend == "efficient" else seq  # cutlass pads to its alignment of 32
    sums = t.new((batch, heads, rows), FLOAT32, "log-sum-exp")
    seeds = [t.new((), INT64, "philox seed"), t.new((), INT64, "philox offset")] if t.cuda else []
    if not grad_needed:
        return out
    saved += t.save((out, sums, *seeds))
    shapes = (query.shape, key.shape, value.shape)
    grouped, value_dim = heads != key.shape[1], value.shape[-1]

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        kind = grad.kind
        grads = [
            t.new(shape, kind, f"{name} gradient")
            for shape, name in zip(shapes, ("query", "key", "value"), strict=True)
        ]
        temporaries = _backward_temporaries(t, backend, (batch, heads, seq, dim), value_dim, kind, grouped=grouped)
        del temporaries
        return grads

    return t.record(out, (query, key, value), saved, backward)


def _bias(t: Tape, shape: tuple[int, int], kind: Kind, backend: str) -> Tensor:
    """A boolean mask as what is added to scores (attention.cpp `convert_boolean_attn_mask`), for one head.

    The efficient kernel wants rows of a multiple of 8 (`preprocess_mask`): others are copied into longer ones.
    """
    batch, seq = shape
    bias = t.new((batch, 1, seq, seq), kind, "mask as bias")
    if t.cuda and backend == "efficient" and seq % MASK_ALIGNMENT:
        bias = t.new((batch, 1, seq, Padded.of(seq, MASK_ALIGNMENT)), kind, "mask as bias, aligned")
    return bias


def _backward_temporaries(
    t: Tape, backend: str, shape: tuple[int, int, int, int], value_dim: int, kind: Kind, *, grouped: bool
) -> list[Tensor]:
    """What the backward kernels need besides the gradients; the CPU's need nothing."""
    if not t.cuda:
        return []
    if backend == "efficient":
        return _efficient_temporaries(t, shape, value_dim, kind)
    return _flash_temporaries(t, backend, shape, kind, grouped=grouped)


def _flash_temporaries(
    t: Tape, backend: str, shape: tuple[int, int, int, int], kind: Kind, *, grouped: bool
) -> list[Tensor]:
    """flash_api.cpp `mha_bwd`, `mha_varlen_bwd`; cuDNN's are taken to be the same."""
    batch, heads, seq, dim = shape
    # `mha_varlen_bwd`: room for 128 more rows per sample
    padded = Padded.of(seq, extra=128) if backend == "varlen" else Padded.of(seq, 128)
    wide = _rounded(dim, 32 if dim <= 128 else 64)
    made = [
        t.new((batch, heads, padded), FLOAT32, "softmax row sums"),
        t.new((batch, padded, heads, wide), FLOAT32, "query gradient accumulator"),
    ]
    if grouped:
        made += [t.new(shape, kind, f"{name} gradient per query head") for name in ("key", "value")]
    return made


def _efficient_temporaries(t: Tape, shape: tuple[int, int, int, int], value_dim: int, kind: Kind) -> list[Tensor]:
    """attention_backward.cu `_efficient_attention_backward`."""
    batch, heads, seq, dim = shape
    if kind is FLOAT32:  # `(grad_out * out).sum(-1)` outside the kernel, which adds into the gradients themselves
        product = t.new((batch, heads, seq, value_dim), FLOAT32, "gradient times output")
        return [product, t.new((batch, heads, seq), FLOAT32, "delta")]
    rows = t.new((batch, heads, seq), FLOAT32, "delta")
    # kernel_backward.h: the query's gradient is added up in fp32; beyond 64 the key's and the value's leave registers
    wide = _rounded(dim, 64)
    wide += _rounded(dim, 64) + _rounded(value_dim, 64) if dim > 64 else 0
    return [rows, t.new((batch, heads, Padded.of(seq, 64), wide), FLOAT32, "gradient accumulators")]


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _math(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads) -> Tensor:
    """`_scaled_dot_product_attention_math`: the full matrix of scores, in fp32 for 16-bit inputs."""
    before = query.kind
    q32, k32, v32 = (cast(t, x, FLOAT32, f"{n} fp32") for x, n in ((query, "query"), (key, "key"), (value, "value")))
    scaled = scale(t, q32, "scaled query")
    bias = _math_bias(t, query, mask)
    keys, values = (
        (k32, v32)
        if spec.broadcasts
        else (repeat_interleave(t, k32, spec.heads), repeat_interleave(t, v32, spec.heads))
    )
    weights = _safe_softmax(
        t,
        batched(
            t,
            dense(t, scaled, permuted=not spec.heads_first),
            _operand(t, scale(t, transposed(t, keys), "scaled keys"), spec, permuted=not spec.heads_first),
            "scores",
        ),
    )
    if spec.dropout:
        weights = dropout(t, weights)
    # C++ evaluates the parts of the tuple that is returned from the last to the first
    returned = cast(t, weights, before, "attention weights")
    out = batched(t, weights, _operand(t, values, spec, permuted=True), "attention output")
    result = cast(t, out, before, "attention output")
    del returned, bias
    return result


def _math_bias(t: Tape, query: Tensor, mask: Tensor | None) -> Tensor:
    """What is added to the scores: the mask, or the causal one, which is made here."""
    seq = query.shape[2]
    if mask is not None:
        return t.new((query.shape[0], 1, seq, seq), query.kind, "mask as bias")
    ones = t.new((seq, seq), BOOL, "causal mask before tril")
    allowed = t.new((seq, seq), BOOL, "causal mask")
    del ones
    bias = t.new((seq, seq), FLOAT32, "causal bias")
    del allowed
    return bias


def _operand(t: Tape, x: Tensor, spec: Heads, *, permuted: bool) -> Tensor:
    """Keys or values as the product takes them: broadcast, repeated already, or laid out anew.

    `matmul` expands what it broadcasts and makes batch and heads one dimension: of a single head and a batch of one by
    a view, else by a copy.
    """
    if spec.broadcasts and x.shape[1] < spec.heads:
        return repeated(t, x, spec.heads, copied=x.shape[0] * x.shape[1] > 1)
    return dense(t, x, permuted=permuted and not spec.grouped)


def _safe_softmax(t: Tape, scores: Tensor) -> Tensor:
    """`_safe_softmax` (SoftMax.cpp): rows without any position become zeros, in place; saves its result.

    Only for subclasses of tensors (fake ones too) does torch make another full tensor here.
    """
    out = t.new(scores.shape, scores.kind, "attention weights")
    masked = t.new(scores.shape, BOOL, "masked positions")
    del masked
    return recorded_softmax(t, scores, out)
