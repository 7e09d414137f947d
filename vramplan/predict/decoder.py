"""The decoder layer of Llama and its relatives as a short list of operations, line by line as transformers 5.17 has it.

models/{llama,mistral,qwen2,qwen3,gemma,gemma2,gemma3,olmo2,granite,phi3,starcoder2,gpt_oss}/modeling_*.py
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vramplan.architecture import Attention, Block, Mlp
from vramplan.predict.activations import activation
from vramplan.predict.attention_heads import rotate
from vramplan.predict.attention_sdpa import Heads
from vramplan.predict.experts import mixture
from vramplan.predict.gated_mlp import fused_gated_mlp, gated_mlp
from vramplan.predict.latent import latent_queries_keys_values
from vramplan.predict.layer_context import Context
from vramplan.predict.liger_layers import liger_rotated
from vramplan.predict.modules import Modules
from vramplan.predict.operations import add, cast, cat, narrow, reshape, scale
from vramplan.predict.positions import broadcasts
from vramplan.predict.sinks import rotate_halves
from vramplan.predict.tape import Tape, Tensor
from vramplan.stacks import LayerKernel

LayerFunction = Callable[[Tape, Modules, Context, Block, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Style:
    """How a family's layer differs from Llama's."""

    before: bool = True
    """Norms in front of attention and MLP."""
    after: bool = False
    """Norms behind attention and MLP, inside the residual branch."""
    upcast_weight: bool = False
    """The norm multiplies by its weight in fp32 and casts last."""
    shifted: bool = False
    """The norm's weight counts from 1."""
    wide_rotation: bool = False
    """Rotary tables stay fp32, and what they turned is cast back (OLMo 2)."""
    scaled_residual: bool = False
    """The branch is multiplied by a number before it is added (Granite)."""
    joins_rest: bool = False
    """What is not rotated of a head is concatenated with what is, even where nothing is left of it (Phi-3)."""
    names: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    """Norms in front."""


#: Norms behind attention and MLP, in the families that have them.
_NORMS_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
_GEMMA = Style(upcast_weight=True, shifted=True)
_GEMMA2 = replace(_GEMMA, after=True, names=("input_layernorm", "pre_feedforward_layernorm"))
STYLES: Mapping[str, Style] = {
    "llama": Style(),
    "mistral": Style(),
    "qwen2": Style(),
    "qwen3": Style(),
    "phi3": Style(joins_rest=True),
    "starcoder2": Style(),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "olmo2": Style(before=False, after=True, upcast_weight=True, wide_rotation=True),
    "granite": Style(scaled_residual=True),
    "mixtral": Style(),
    "qwen3_moe": Style(),
    "deepseek_v2": Style(),
    "gpt_oss": Style(upcast_weight=True),
}


def layer(t: Tape, m: Modules, c: Context, block: Block, hidden: Tensor) -> Tensor:
    """One decoder layer; every assignment is one of the library's, so that tensors die when they do there."""
    style = STYLES[c.architecture.family]
    residual = hidden
    x = _norm(t, m, style, style.names[0], hidden) if style.before else hidden
    x, _weights = attention(t, m, c, block.attention, style, x)
    if style.after:
        x = _norm(t, m, style, _NORMS_AFTER[0], x)
    x = add(t, residual, scale(t, x) if style.scaled_residual else x, "residual")
    residual = x
    x = _norm(t, m, style, style.names[1], x) if style.before else x
    x = feed_forward(t, m, block, x, family=c.architecture.family)
    if style.after:
        x = _norm(t, m, style, _NORMS_AFTER[1], x)
    return add(t, residual, scale(t, x) if style.scaled_residual else x, "layer output")


def _norm(t: Tape, m: Modules, style: Style, path: str, x: Tensor, *, contiguous: bool = True) -> Tensor:
    return m.norm(t, path, x, upcast_weight=style.upcast_weight, shifted=style.shifted, contiguous=contiguous)


def split_heads(t: Tape, x: Tensor, heads: int) -> Tensor:
    """`x.view(batch, seq, heads, -1).transpose(1, 2)`."""
    batch, seq, width = x.shape
    return reshape(t, reshape(t, x, (batch, seq, heads, width // heads)), (batch, heads, seq, width // heads))


def attention(
    t: Tape, m: Modules, c: Context, facts: Attention, style: Style, x: Tensor
) -> tuple[Tensor, Tensor | None]:
    """`self_attn`: projections, norms of queries and keys, rotary positions, attention, output projection."""
    held: list[Tensor] = []
    if facts.latent_kv:
        (query, key, value), held = latent_queries_keys_values(t, m, c, facts, x)
    else:
        query, key, value = _rotated(t, m, c, facts, style, *_queries_keys_values(t, m, facts, style, x))
        key, value = c.remember(t, key, value, facts.window)
    sinks = m.tensors.get("self_attn.sinks")
    spec = replace(heads(c, facts), heads_first=_comes_by_heads(m, facts, style))
    out, weights = c.attend(t, query, key, value, spec, windowed=facts.window > 0, sinks=sinks)
    out = reshape(t, out, (*x.shape[:-1], facts.heads * facts.value_dim))
    out = m["self_attn.o_proj"](t, out)
    del held
    return out, weights


def heads(c: Context, facts: Attention) -> Heads:
    """How queries meet keys; rotary parts that are concatenated with the rest come out heads first."""
    return Heads(
        facts.heads,
        facts.kv_heads,
        facts.head_dim,
        facts.value_dim,
        facts.softcap,
        dropout=c.architecture.facts.dropouts.attention > 0,
        broadcasts=broadcasts(c.architecture),
        heads_first=_rotates_in_part(facts),
    )


def _rotates_in_part(facts: Attention) -> bool:
    return 0 < facts.rotary_dim < facts.head_dim


def _comes_by_heads(m: Modules, facts: Attention, style: Style) -> bool:
    """Whether queries and keys come to attention laid out by heads, as concatenation leaves them; Liger rotates them
    where the projection put them, and lays out anew what it norms by heads."""
    if LayerKernel.ROPE in m.liger.kernels:
        return False
    joined = _rotates_in_part(facts) or facts.sinks or style.joins_rest
    return joined or (LayerKernel.RMS_NORM in m.liger.kernels and _normed_by_heads(facts, style))


def _rotated(
    t: Tape, m: Modules, c: Context, facts: Attention, style: Style, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if not c.tables:  # a family without rotary positions that Llama's layer stands in for
        return query, key, value
    cos, sin = c.tables[facts.window > 0]
    outer, t.scope = t.scope, "rotary"
    if LayerKernel.ROPE in m.liger.kernels:
        query, key = liger_rotated(
            t, query, key, cos, sin, contiguous=not facts.fused_qkv, half_width_tables=facts.sinks
        )
    elif facts.sinks:
        query, key = rotate_halves(t, query, cos, sin), rotate_halves(t, key, cos, sin)
    elif style.wide_rotation:
        turned = rotate_both(t, query, key, cos, sin)
        query, key = (cast(t, wide, query.kind, "rotated, cast back") for wide in turned)
    else:
        query, key = rotate_both(t, query, key, cos, sin, joined=style.joins_rest)
    t.scope = outer
    return query, key, value


def rotate_both(
    t: Tape, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, joined: bool = False, in_turn: bool = True
) -> tuple[Tensor, Tensor]:
    """Rotary positions on the first part of each head; the rest, empty though it may be (`joined`), is concatenated.

    `in_turn`: the query is done (Phi-3) before the key's turn comes; else both are rotated first (GPT-NeoX).
    """
    turned = cos.shape[-1]
    if turned == query.shape[-1] and not joined:
        return rotate(t, query, cos, sin), rotate(t, key, cos, sin)
    query, query_rest = divided(t, query, turned)
    key, key_rest = divided(t, key, turned)
    query = rotate(t, query, cos, sin)
    if in_turn:
        query = cat(t, [query, query_rest], "rotated, with the rest")
        return query, cat(t, [rotate(t, key, cos, sin), key_rest], "rotated, with the rest")
    key = rotate(t, key, cos, sin)
    query = cat(t, [query, query_rest], "rotated, with the rest")
    return query, cat(t, [key, key_rest], "rotated, with the rest")


def divided(t: Tape, x: Tensor, turned: int) -> tuple[Tensor, Tensor]:
    """`x[..., :turned]`, which is x itself when that is all, and `x[..., turned:]`."""
    whole = turned == x.shape[-1]
    return x if whole else narrow(t, x, turned), narrow(t, x, x.shape[-1] - turned)


def _queries_keys_values(
    t: Tape, m: Modules, facts: Attention, style: Style, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if facts.fused_qkv:
        return _from_fused(t, m, facts, x)
    if facts.qk_norm == "full":
        query = _norm(t, m, style, "self_attn.q_norm", m["self_attn.q_proj"](t, x))
        key = _norm(t, m, style, "self_attn.k_norm", m["self_attn.k_proj"](t, x))
        value = m["self_attn.v_proj"](t, x)
        query, key = split_heads(t, query, facts.heads), split_heads(t, key, facts.kv_heads)
        return query, key, split_heads(t, value, facts.kv_heads)
    query = split_heads(t, m["self_attn.q_proj"](t, x), facts.heads)
    normed_first = facts.qk_norm == "head" and not style.shifted  # Qwen 3
    if normed_first:
        query = _norm(t, m, style, "self_attn.q_norm", query)
    key = split_heads(t, m["self_attn.k_proj"](t, x), facts.kv_heads)
    if normed_first:
        key = _norm(t, m, style, "self_attn.k_norm", key)
    value = split_heads(t, m["self_attn.v_proj"](t, x), facts.kv_heads)
    if _normed_by_heads(facts, style):
        query = _norm(t, m, style, "self_attn.q_norm", query, contiguous=False)
        key = _norm(t, m, style, "self_attn.k_norm", key, contiguous=False)
    return query, key, value


def _normed_by_heads(facts: Attention, style: Style) -> bool:
    """Whether queries and keys are normed once they are split into heads, whose rows lie apart (Gemma 3)."""
    return facts.qk_norm == "head" and style.shifted


def _from_fused(t: Tape, m: Modules, facts: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Phi-3: three slices of one projection."""
    qkv = m["self_attn.qkv_proj"](t, x)
    sizes = (facts.heads, facts.kv_heads, facts.kv_heads)
    query, key, value = (narrow(t, qkv, heads * facts.head_dim) for heads in sizes)
    query, key = split_heads(t, query, facts.heads), split_heads(t, key, facts.kv_heads)
    return query, key, split_heads(t, value, facts.kv_heads)


def feed_forward(t: Tape, m: Modules, block: Block, x: Tensor, *, family: str) -> Tensor:
    """The MLP: gated, gated with one fused projection, or plain."""
    mlp = block.mlp
    if mlp is None:
        assert block.experts is not None
        return mixture(t, m, block.experts, x, family=family)
    outer, t.scope = t.scope, "mlp"
    if mlp.fused_gate:
        out = fused_gated_mlp(t, m, mlp, x)
    elif mlp.gated:
        out = gated_mlp(t, m, "mlp", mlp.activation, x)
    else:
        out = plain_mlp(t, m, mlp, x, "mlp.c_fc", "mlp.c_proj")
    t.scope = outer
    return out


def plain_mlp(t: Tape, m: Modules, mlp: Mlp, x: Tensor, first: str, second: str) -> Tensor:
    """Up, activation, down."""
    hidden = m[first](t, x)
    hidden = activation(t, mlp.activation, hidden)
    return m[second](t, hidden)
