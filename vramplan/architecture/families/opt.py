"""OPT: learned positions, layer norms before or after, and in OPT-350m embeddings narrower than the layers.

transformers 5.17.0, models/opt/modeling_opt.py.
"""

from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture, Attention, Dropouts, Facts, Mlp
from vramplan.architecture.parts import Weights, dropout, embedding, head, layer_norm, linear, spread

#: OPTLearnedPositionalEmbedding keeps two rows in front of the first position.
POSITION_OFFSET = 2


def read_opt(fields: Fields) -> Architecture:
    """OPT. The model's own order puts the final norm before the layers, so it stands in `before`."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    d = fields.divides("num_attention_heads", heads, "hidden_size", hidden)
    inner, vocab = fields.size("ffn_dim"), fields.size("vocab_size")
    bias, affine = fields.flag("enable_bias", missing=True), fields.flag("layer_norm_elementwise_affine", missing=True)
    layer = _layer(hidden, inner, bias=bias, affine=affine)
    attention = Attention(heads, heads, d, d, rotary_dim=0)
    mlp = Mlp(inner, fields.word("activation_function", missing="relu"), gated=False)
    blocks, order = spread((0,) * fields.size("num_hidden_layers"), layer, attention, mlp)
    tied, narrow = fields.flag("tie_word_embeddings", missing=True), _embedding_width(fields, hidden)
    norm_first = fields.flag("do_layer_norm_before", missing=True)
    positions = fields.size("max_position_embeddings", missing=2048)
    final_norm = norm_first and affine and not fields.flag("_remove_final_layer_norm", missing=False)
    return Architecture(
        name=fields.name,
        family="opt",
        hidden=hidden,
        vocab=vocab,
        norm="layer",
        tied=tied,
        layer_prefix="model.decoder.layers",
        blocks=blocks,
        layers=order,
        before=(
            *embedding("model.decoder.embed_tokens", vocab, narrow),
            *embedding("model.decoder.embed_positions", positions + POSITION_OFFSET, hidden),
            *(_projections(hidden, narrow) if narrow != hidden else ()),
            *(layer_norm("model.decoder.final_layer_norm", hidden) if final_norm else ()),
        ),
        after=head(narrow, vocab, tied=tied),
        facts=Facts(
            dropouts=Dropouts(
                attention=dropout(fields, "attention_dropout"), residual=dropout(fields, "dropout", missing=0.1)
            ),
            learned_positions=True,
            norm_after_residual=not norm_first,
        ),
    )


def _embedding_width(fields: Fields, hidden: int) -> int:
    return fields.size("word_embed_proj_dim", missing=hidden, null=hidden)


def _projections(hidden: int, narrow: int) -> Weights:
    """From the layers' width to the embeddings' and back."""
    return (
        *linear("model.decoder.project_out", hidden, narrow),
        *linear("model.decoder.project_in", narrow, hidden),
    )


def _layer(hidden: int, inner: int, *, bias: bool, affine: bool) -> Weights:
    projections = ("k_proj", "v_proj", "q_proj", "out_proj")
    return (
        *(weight for name in projections for weight in linear(f"self_attn.{name}", hidden, hidden, bias=bias)),
        *(layer_norm("self_attn_layer_norm", hidden) if affine else ()),
        *linear("fc1", hidden, inner, bias=bias),
        *linear("fc2", inner, hidden, bias=bias),
        *(layer_norm("final_layer_norm", hidden) if affine else ()),
    )
