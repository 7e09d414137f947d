"""Attention: the eager code of transformers, and the kernels behind `scaled_dot_product_attention`.

aten/src/ATen/native/transformers (torch 2.13): attention.cpp, cuda/attention.cu, cuda/attention_backward.cu.
"""

from dataclasses import dataclass

from vramplan.attention import MASK_ALIGNMENT
from vramplan.predict.operations import add, cast, cat, clone, dropout, mul, narrow, pointwise, reshape, scale, softmax
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


def repeat_kv(t: Tape, x: Tensor, heads: int) -> Tensor:
    """transformers' `repeat_kv`, an expand and a reshape: a copy, unless a single head makes it a view."""
    if x.shape[1] == heads:
        return x
    return _repeated(t, x, heads, copied=x.shape[1] > 1)


def repeat_interleave(t: Tape, x: Tensor, heads: int) -> Tensor:
    """The math kernel's repetition of grouped heads, and what Falcon's broadcast products make: always a copy."""
    return x if x.shape[1] == heads else _repeated(t, x, heads, copied=True)


def _repeated(t: Tape, x: Tensor, heads: int, *, copied: bool) -> Tensor:
    """A key or value head per query head; the gradient is summed over them."""
    batch, _, seq, dim = x.shape
    shape = (batch, heads, seq, dim)
    out = t.new(shape, x.kind, "keys or values repeated") if copied else t.view(x, shape)
    if not t.needs_grad(x):
        return out
    before = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (_heads_first(t.new(before, grad.kind, "gradient summed over repeated heads")),)

    return t.record(out, (x,), [], backward)


def _heads_first(grad: Tensor) -> Tensor:
    grad.heads_first = True
    return grad


def _dense(t: Tape, x: Tensor, *, permuted: bool) -> Tensor:
    """What a batched product makes of heads that lie in memory behind the sequence: a copy, unless batch is 1."""
    return clone(t, x, "operand of a batched product") if permuted and x.shape[0] > 1 else x


def batched(t: Tape, a: Tensor, b: Tensor, label: str, *, a_permuted: bool = False, b_permuted: bool = False) -> Tensor:
    """`torch.matmul` of 4-dimensional tensors: one product per batch entry and head.

    Permuted operands lie in memory behind the sequence: copied, unless batch is 1, once they have their type.
    """
    b, a = lowered(t, b, "operand cast"), lowered(t, a, "operand cast")
    left, right = _dense(t, a, permuted=a_permuted), _dense(t, b, permuted=b_permuted)
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((left if nb else None, right if na else None)) if na or nb else []
    out = t.new((*a.shape[:-1], b.shape[-1]), a.kind, label)
    if not (na or nb):
        return out
    sa, sb = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # derivatives are computed in the order of their names, `mat2` before `self`
        to_b = t.view(_heads_first(t.new(sb, grad.kind, label + ": right gradient")), sb) if nb else None
        return t.view(_heads_first(t.new(sa, grad.kind, label + ": left gradient")), sa) if na else None, to_b

    return _apart(t, t.record(out, (left, right), saved, backward))


def _apart(t: Tape, product: Tensor) -> Tensor:
    """Batch and heads as dimensions of their own again; where the gradient does not lie so, it is copied first."""
    batch, heads = product.shape[:2]

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        if grad.heads_first or batch == 1 or heads == 1:
            return (t.view(grad, grad.shape),)
        return (_heads_first(t.new(grad.shape, grad.kind, "gradient of a batched product laid out")),)

    return t.record(t.view(product, product.shape), (product,), [], backward)


def transposed(t: Tape, x: Tensor) -> Tensor:
    """`x.transpose(-1, -2)`: a view."""
    return reshape(t, x, (*x.shape[:-2], x.shape[-1], x.shape[-2]))


def eager(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads
) -> tuple[Tensor, Tensor]:
    """`eager_attention_forward` of modeling_llama.py: scores of every pair of positions, softmax in fp32."""
    laid_out = spec.grouped and spec.kv_heads > 1  # repeated heads are copies; a single head is still a view
    key_states = repeat_kv(t, key, spec.heads)
    value_states = repeat_kv(t, value, spec.heads)
    weights = scale(
        t,
        batched(
            t,
            query,
            transposed(t, key_states),
            "scores",
            a_permuted=not spec.heads_first,
            b_permuted=not laid_out and not spec.heads_first,
        ),
        "scaled scores",
    )
    if spec.softcap:
        weights = scale(t, weights, "capped scores")
        weights = pointwise(t, weights, "tanh of scores", saves="result")
        weights = scale(t, weights, "soft-capped scores")
    if mask is not None:
        weights = add(t, weights, mask, "masked scores")
    weights = cast(t, softmax(t, weights, FLOAT32), query.kind, "attention weights")
    if spec.dropout:
        weights = dropout(t, weights)
    out = batched(t, weights, value_states, "attention output", b_permuted=not laid_out)
    return heads_last(t, out, copy=True), weights


def falcon_eager(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, kind: Kind
) -> tuple[Tensor, Tensor]:
    """FalconAttention's own: scores are divided in place and masked, the softmax is in `kind`, the layer's input's."""
    keys = transposed(t, repeat_interleave(t, lowered(t, key, "key cast"), spec.heads))
    scores = _scaled_in_place(t, batched(t, query, keys, "scores"))
    del keys
    masked = scores if mask is None else add(t, scores, mask, "masked scores")
    weights = softmax(t, masked, kind)
    del masked, scores
    low = lowered(t, weights, "attention weights cast")
    out = batched(t, low, repeat_interleave(t, lowered(t, value, "value cast"), spec.heads), "attention output")
    del low
    return heads_last(t, out, copy=True), weights


def _scaled_in_place(t: Tape, x: Tensor) -> Tensor:
    """`x /= number`: x's storage; the gradient is divided into a new tensor."""
    out = t.view(x, x.shape)
    if not t.needs_grad(x):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.like(grad, grad.kind, "scaled scores gradient"),)

    return t.record(out, (x,), [], backward)


def heads_last(t: Tape, out: Tensor, *, copy: bool) -> Tensor:
    """`transpose(1, 2).contiguous()`: a copy unless the kernel laid its output out that way."""
    batch, heads, seq, dim = out.shape
    swapped = reshape(t, out, (batch, seq, heads, dim))
    return clone(t, swapped, "attention output, heads last") if copy else swapped


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
        return _fused(t, query, key, value, mask, backend)
    autocast, t.autocast = t.autocast, None  # what autocast has cast once it does not see again inside
    out = _math(t, query, key, value, mask, spec)
    t.autocast = autocast
    return out


def _fused(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, backend: str) -> Tensor:
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
    """What the backward kernels need besides the gradients (flash_api.cpp `mha_bwd`, attention_backward.cu)."""
    batch, heads, seq, dim = shape
    if not t.cuda:
        return []
    if backend in ("flash", "cudnn", "flash_attention_2", "varlen"):
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
    before, seq = query.kind, query.shape[2]
    q32, k32, v32 = (cast(t, x, FLOAT32, f"{n} fp32") for x, n in ((query, "query"), (key, "key"), (value, "value")))
    scaled = scale(t, q32, "scaled query")
    if mask is not None:
        bias = t.new((query.shape[0], 1, seq, seq), before, "mask as bias")
    else:
        ones = t.new((seq, seq), BOOL, "causal mask before tril")
        allowed = t.new((seq, seq), BOOL, "causal mask")
        del ones
        bias = t.new((seq, seq), FLOAT32, "causal bias")
        del allowed
    keys, values = (
        (k32, v32)
        if spec.broadcasts
        else (repeat_interleave(t, k32, spec.heads), repeat_interleave(t, v32, spec.heads))
    )
    weights = _safe_softmax(
        t,
        batched(
            t,
            _dense(t, scaled, permuted=not spec.heads_first),
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


def _operand(t: Tape, x: Tensor, spec: Heads, *, permuted: bool) -> Tensor:
    """Keys or values as the product takes them: broadcast, repeated already, or laid out anew.

    `matmul` expands what it broadcasts and makes batch and heads one dimension: of a single head and a batch of one by
    a view, else by a copy.
    """
    if spec.broadcasts and x.shape[1] < spec.heads:
        return _repeated(t, x, spec.heads, copied=x.shape[0] * x.shape[1] > 1)
    return _dense(t, x, permuted=permuted and not spec.grouped)


def _safe_softmax(t: Tape, scores: Tensor) -> Tensor:
    """`_safe_softmax` (SoftMax.cpp): rows without any position become zeros, in place; saves its result.

    Only for subclasses of tensors (fake ones too) does torch make another full tensor here.
    """
    grad_needed = t.needs_grad(scores)
    out = t.new(scores.shape, scores.kind, "attention weights")
    masked = t.new(scores.shape, BOOL, "masked positions")
    del masked
    if not grad_needed:
        return out
    saved = t.save((out,))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        result = t.like(grad, grad.kind, "softmax gradient")  # SoftMax.cu's kernel finds its output made
        product = t.new(grad.shape, grad.kind, "softmax gradient times output") if t.cuda else None
        del product
        return (result,)

    return t.record(out, (scores,), saved, backward)


def rotate(t: Tape, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`(x * cos) + (rotate_half(x) * sin)` of `apply_rotary_pos_emb`."""
    straight = mul(t, x, cos, "x * cos")
    half = x.shape[-1] // 2
    first = narrow(t, x, half)
    turned = mul(t, _join(t, x, first), sin, "rotated * sin")
    del first
    return add(t, straight, turned, "rotated")


def _join(t: Tape, x: Tensor, first: Tensor) -> Tensor:
    second = scale(t, narrow(t, x, x.shape[-1] - first.shape[-1]), "-x2")
    return cat(t, [second, first], "rotate_half(x)")
