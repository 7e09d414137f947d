"""What most decoders share: Llama's names for projections, a gated MLP, one embedding, one final norm, one head."""

from dataclasses import replace

from vramplan.architecture.families.dims import Dims
from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture, Attention, Block, Facts, Mlp, QkNorm
from vramplan.architecture.parts import Weights, dropout, embedding, head, linear, rms_norm, rotary_buffers


def attention_weights(dims: Dims, *, bias: bool, out_bias: bool, qk_norm: Weights = ()) -> Weights:
    """The four projections in Llama's order, then the norms of queries and keys."""
    wide, narrow = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    return (
        *linear("self_attn.q_proj", dims.hidden, wide, bias=bias),
        *linear("self_attn.k_proj", dims.hidden, narrow, bias=bias),
        *linear("self_attn.v_proj", dims.hidden, narrow, bias=bias),
        *linear("self_attn.o_proj", wide, dims.hidden, bias=out_bias),
        *qk_norm,
    )


def gated_mlp(path: str, hidden: int, intermediate: int, *, bias: bool = False) -> Weights:
    """gate, up and down."""
    return (
        *linear(f"{path}.gate_proj", hidden, intermediate, bias=bias),
        *linear(f"{path}.up_proj", hidden, intermediate, bias=bias),
        *linear(f"{path}.down_proj", intermediate, hidden, bias=bias),
    )


def norms(hidden: int, *names: str) -> Weights:
    """RMS norms of the hidden size."""
    return tuple(norm for name in names for norm in rms_norm(name, hidden))


def ordinary_attention(dims: Dims, *, qk_norm: QkNorm = "") -> Attention:
    """Attention whose heads are rotated whole."""
    d = dims.head_dim
    return Attention(dims.heads, dims.kv_heads, head_dim=d, value_dim=d, rotary_dim=d, qk_norm=qk_norm)


def ordinary_mlp(dims: Dims) -> Mlp:
    """A gated MLP of three projections."""
    return Mlp(dims.intermediate, dims.activation, gated=True)


def head_norms(dims: Dims) -> Weights:
    """Norms of one head of the queries and the keys."""
    return (*rms_norm("self_attn.q_norm", dims.head_dim), *rms_norm("self_attn.k_norm", dims.head_dim))


def decoder(
    fields: Fields,
    family: str,
    dims: Dims,
    blocks: tuple[tuple[Block, ...], tuple[int, ...]],
    facts: Facts | None = None,
) -> Architecture:
    """A model with Llama's outside: embedding, layers, final RMS norm, head, rotary frequencies.

    `facts` are what it has besides; its attention's dropout is read here.
    """
    kinds, layers = blocks
    facts = facts or Facts()
    dropouts = replace(facts.dropouts, attention=dropout(fields, "attention_dropout"))
    return Architecture(
        name=fields.name,
        family=family,
        hidden=dims.hidden,
        vocab=dims.vocab,
        norm="rms",
        tied=dims.tied,
        layer_prefix="model.layers",
        blocks=kinds,
        layers=layers,
        before=embedding("model.embed_tokens", dims.vocab, dims.hidden),
        after=(*rms_norm("model.norm", dims.hidden), *head(dims.hidden, dims.vocab, tied=dims.tied)),
        buffers=rotary_buffers("model.rotary_emb", kinds[0].attention.rotary_dim),
        facts=replace(facts, dropouts=dropouts),
    )
