"""Falcon: one fused projection, attention and MLP side by side, linear layers of its own class.

FalconLinear is a subclass of nn.Linear, and transformers replaces nn.Linear itself only (`type(module) is nn.Linear`,
integrations/bitsandbytes.py, 5.17.0): no weight of a Falcon is quantised. models/falcon/modeling_falcon.py.
"""

from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture, Attention, Dropouts, Facts, Mlp, WeightKind
from vramplan.architecture.parts import (
    Weights,
    dropout,
    embedding,
    head,
    layer_norm,
    linear,
    rotary_buffers,
    spread,
)


def read_falcon(fields: Fields) -> Architecture:
    """Falcon 7B (one key/value head), 40B and 180B (grouped heads, two norms), RW (ALiBi, one after the other)."""
    hidden, vocab = fields.size("hidden_size", "n_embed"), fields.size("vocab_size")
    attention = _attention(fields, hidden)
    inner = fields.size("ffn_hidden_size", missing=4 * hidden, null=4 * hidden)
    parallel = fields.flag("parallel_attn", missing=True)
    norms = _norm_names(fields, parallel=parallel)
    mlp = Mlp(inner, fields.word("activation", missing="gelu"), gated=False)
    layer = _layer(hidden, inner, attention, norms, bias=fields.flag("bias", missing=False))
    blocks, order = spread((0,) * fields.size("num_hidden_layers"), layer, attention, mlp)
    tied = fields.flag("tie_word_embeddings", missing=True)
    return Architecture(
        name=fields.name,
        family="falcon",
        hidden=hidden,
        vocab=vocab,
        norm="layer",
        tied=tied,
        layer_prefix="transformer.h",
        blocks=blocks,
        layers=order,
        before=embedding("transformer.word_embeddings", vocab, hidden),
        after=(*layer_norm("transformer.ln_f", hidden), *head(hidden, vocab, tied=tied)),
        buffers=rotary_buffers("transformer.rotary_emb", attention.head_dim),
        facts=Facts(
            dropouts=Dropouts(
                attention=dropout(fields, "attention_dropout"), residual=dropout(fields, "hidden_dropout")
            ),
            parallel_residual=parallel or fields.flag("new_decoder_architecture", missing=False),
        ),
    )


def _attention(fields: Fields, hidden: int) -> Attention:
    heads = fields.size("num_attention_heads")
    d = fields.divides("num_attention_heads", heads, "hidden_size", hidden)
    grouped = fields.flag("new_decoder_architecture", missing=False) or not fields.flag("multi_query", missing=True)
    kv_heads = fields.size("num_kv_heads", missing=heads, null=heads) if grouped else 1
    fields.divides("num_kv_heads", kv_heads, "num_attention_heads", heads)
    rotary = 0 if fields.flag("alibi", missing=False) else d
    return Attention(heads, kv_heads, d, d, rotary_dim=rotary, fused_qkv=True)


def _norm_names(fields: Fields, *, parallel: bool) -> tuple[str, ...]:
    if not parallel:
        return "post_attention_layernorm", "input_layernorm"
    new = fields.flag("new_decoder_architecture", missing=False)
    count = fields.size("num_ln_in_parallel_attn", missing=2 if new else 1, null=2 if new else 1)
    return ("ln_attn", "ln_mlp") if count == 2 else ("input_layernorm",)


def _layer(hidden: int, inner: int, attention: Attention, norms: tuple[str, ...], *, bias: bool) -> Weights:
    own = WeightKind.SUBLINEAR
    qkv = (attention.heads + 2 * attention.kv_heads) * attention.head_dim
    return (
        *linear("self_attention.query_key_value", hidden, qkv, bias=bias, kind=own),
        *linear("self_attention.dense", hidden, hidden, bias=bias, kind=own),
        *linear("mlp.dense_h_to_4h", hidden, inner, bias=bias, kind=own),
        *linear("mlp.dense_4h_to_h", inner, hidden, bias=bias, kind=own),
        *(weight for name in norms for weight in layer_norm(name, hidden)),
    )
