"""Attention by `scaled_dot_product_attention`: the kernels behind it, and what transformers does around them.

aten/src/ATen/native/transformers (torch 2.13): attention.cpp, cuda/attention.cu, cuda/attention_backward.cu.
"""

from dataclasses import dataclass, replace

from vramplan.attention import LEFT_TO_BROADCASTING, AttentionInput, Choice, Kernel, resolve
from vramplan.predict.attention_heads import (
    batched,
    broadcast_heads,
    dense,
    heads_last,
    repeat_interleave,
    repeat_kv,
    transposed,
)
from vramplan.predict.attention_kernels import fused, pads
from vramplan.predict.linear import lowered
from vramplan.predict.operations import cast, dropout, recorded_softmax, scale
from vramplan.predict.tape import BOOL, FLOAT32, Kind, Tape, Tensor
from vramplan.scenario import DType, Scenario


@dataclass(frozen=True, slots=True)
class Heads:
    """How queries meet keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    softcap: bool = False
    dropout: bool = False
    causal: bool = True
    """Whether each position sees those before it alone, where no mask says which."""
    broadcasts: bool = False
    """Whether fewer key heads are left to the matrix product's broadcasting (Falcon)."""
    heads_first: bool = False
    """Whether queries and keys lie in memory as [batch, heads, seq, dim], laid out anew, and not seq first."""

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key head."""
        return self.heads != self.kv_heads

    def repeats(self, masked: bool) -> bool:
        """Whether transformers repeats keys and values itself, mask or no mask (`use_gqa_in_sdpa`)."""
        return masked or self.head_dim != self.value_dim or self.head_dim > 256


def chosen(scenario: Scenario, t: Tape, kind: Kind, spec: Heads, masked: bool) -> Choice:
    """The kernel behind `sdpa` for queries of `kind` and heads as the kernel gets them, and why."""
    if spec.broadcasts:
        return LEFT_TO_BROADCASTING
    if not t.cuda and scenario.attention == "sdpa":
        # sdp_utils_cpp.cpp: the CPU's flash kernel takes neither dropout nor values of another width than keys
        flash = spec.head_dim == spec.value_dim and not spec.dropout
        return Choice(Kernel.FLASH if flash else Kernel.MATH)
    computed = DType((t.autocast or kind).name)
    call = AttentionInput(computed, spec.head_dim, spec.value_dim, spec.grouped, masked, t.capability)
    return resolve(call, scenario.attention.partition(":")[2])


def chosen_behind_repeats(scenario: Scenario, t: Tape, kind: Kind, spec: Heads, masked: bool) -> Choice:
    """The same for heads as `sdpa_attention_forward` gets them, which may repeat keys and values first."""
    return chosen(scenario, t, kind, replace(spec, kv_heads=spec.heads) if spec.repeats(masked) else spec, masked)


def sdpa(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, backend: str) -> Tensor:
    """`sdpa_attention_forward`: the kernel that `backend` names (flash, efficient, cudnn, math)."""
    if backend == "flash_attention_2":
        out = fused(t, *cast_for_flash(t, query, key, value), None, backend)
    else:
        if spec.repeats(mask is not None) and not spec.broadcasts:
            key, value = repeat_kv(t, key, spec.heads), repeat_kv(t, value, spec.heads)
        out = _called(t, query, key, value, mask, spec, backend)
    if backend == "math":
        return heads_last(t, out, copy=True)
    # flash: `empty_like(query)`, which keeps the query's layout, or what is cut of a padded one; efficient: always
    # sequence first
    heads_first = spec.heads_first or pads(t, spec.head_dim, backend)
    return heads_last(t, out, copy=heads_first and backend != "efficient")


def cast_for_flash(t: Tape, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What flash_attention_2 itself makes of fp32 queries, keys and values: autocast's type, else the model's own.

    transformers 5.17 integrations/flash_attention.py `get_target_dtype`, `fa_peft_integration_check`.
    """
    kind = t.autocast or t.flash_kind
    if kind is None or query.kind is not FLOAT32:
        return query, key, value
    return cast(t, query, kind, "query cast"), cast(t, key, kind, "key cast"), cast(t, value, kind, "value cast")


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


def _math(t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads) -> Tensor:
    """`_scaled_dot_product_attention_math`: the full matrix of scores, in fp32 for 16-bit inputs."""
    before = query.kind
    q32, k32, v32 = (cast(t, x, FLOAT32, f"{n} fp32") for x, n in ((query, "query"), (key, "key"), (value, "value")))
    scaled = scale(t, q32, "scaled query")
    bias = _math_bias(t, query, mask) if spec.causal or mask is not None else None
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
    one_head = spec.kv_heads == 1 and values is value  # repeated by a view, and not cast
    out = batched(t, weights, _operand(t, values, spec, permuted=True, one_head=one_head), "attention output")
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


def _operand(t: Tape, x: Tensor, spec: Heads, *, permuted: bool, one_head: bool = False) -> Tensor:
    """Keys or values as the product takes them: broadcast, repeated already (but for the view of one head), or laid
    out anew."""
    if spec.broadcasts and x.shape[1] < spec.heads:
        return broadcast_heads(t, x, spec.heads)
    return dense(t, x, permuted=permuted and (one_head or not spec.grouped))


def _safe_softmax(t: Tape, scores: Tensor) -> Tensor:
    """`_safe_softmax` (SoftMax.cpp): rows without any position become zeros, in place; saves its result.

    Only for subclasses of tensors (fake ones too) does torch make another full tensor here.
    """
    out = t.new(scores.shape, scores.kind, "attention weights")
    masked = t.new(scores.shape, BOOL, "masked positions")
    rows = t.new((*scores.shape[:-1], 1), BOOL, "rows without any position")
    del rows, masked
    return recorded_softmax(t, scores, out)
