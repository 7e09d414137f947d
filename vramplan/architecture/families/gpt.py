"""Decoders with layer norms: GPT-2, GPT-NeoX (Pythia), StarCoder 2.

transformers 5.17.0, models/{gpt2,gpt_neox,starcoder2}/modeling_*.py.
"""

from dataclasses import replace

from vramplan.architecture.families.dims import Defaults, read_dims
from vramplan.architecture.families.skeleton import attention_weights, decoder, ordinary_attention
from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture, Attention, Dropouts, Facts, Mlp
from vramplan.architecture.parts import (
    Weights,
    conv1d,
    dropout,
    embedding,
    head,
    layer_norm,
    linear,
    partial_rotary,
    rotary_buffers,
    spread,
)

STARCODER2 = Defaults(kv_heads=2, activation="gelu_pytorch_tanh", tied=True)


def read_gpt2(fields: Fields) -> Architecture:
    """GPT-2: Conv1D layers (stored [in, out]), learned positions, dropout on by default."""
    hidden, heads = fields.size("n_embd", "hidden_size"), fields.size("n_head", "num_attention_heads")
    d = fields.divides("n_head", heads, "n_embd", hidden)
    inner = fields.size("n_inner", missing=4 * hidden, null=4 * hidden)
    positions, vocab = fields.size("n_positions", "max_position_embeddings", missing=1024), fields.size("vocab_size")
    if fields.flag("add_cross_attention", missing=False):
        raise fields.wrong("add_cross_attention", True, "false: only decoders without an encoder are read")
    attention = Attention(heads, heads, d, d, rotary_dim=0, fused_qkv=True)
    mlp = Mlp(inner, fields.word("activation_function", missing="gelu_new"), gated=False)
    layers = fields.size("n_layer", "num_hidden_layers")
    blocks, order = spread((0,) * layers, _gpt2_layer(hidden, inner), attention, mlp)
    tied = fields.flag("tie_word_embeddings", missing=True)
    return Architecture(
        name=fields.name,
        family="gpt2",
        hidden=hidden,
        vocab=vocab,
        norm="layer",
        tied=tied,
        layer_prefix="transformer.h",
        blocks=blocks,
        layers=order,
        before=(*embedding("transformer.wte", vocab, hidden), *embedding("transformer.wpe", positions, hidden)),
        after=(*layer_norm("transformer.ln_f", hidden), *head(hidden, vocab, tied=tied)),
        facts=Facts(dropouts=_gpt2_dropouts(fields), learned_positions=True),
    )


def _gpt2_layer(hidden: int, inner: int) -> Weights:
    return (
        *layer_norm("ln_1", hidden),
        *conv1d("attn.c_attn", hidden, 3 * hidden),
        *conv1d("attn.c_proj", hidden, hidden),
        *layer_norm("ln_2", hidden),
        *conv1d("mlp.c_fc", hidden, inner),
        *conv1d("mlp.c_proj", inner, hidden),
    )


def _gpt2_dropouts(fields: Fields) -> Dropouts:
    return Dropouts(
        attention=dropout(fields, "attn_pdrop", missing=0.1),
        residual=dropout(fields, "resid_pdrop", missing=0.1),
        embedding=dropout(fields, "embd_pdrop", missing=0.1),
    )


def read_gpt_neox(fields: Fields) -> Architecture:
    """GPT-NeoX and Pythia: a quarter of each head rotated, attention and MLP side by side behind norms of their own."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    d = fields.divides("num_attention_heads", heads, "hidden_size", hidden)
    inner, vocab = fields.size("intermediate_size"), fields.size("vocab_size")
    rotary = partial_rotary(fields, d, key="rotary_pct", missing=0.25)
    layer = _neox_layer(hidden, inner, bias=fields.flag("attention_bias", missing=True))
    attention = Attention(heads, heads, d, d, rotary_dim=rotary, fused_qkv=True)
    mlp = Mlp(inner, fields.word("hidden_act", missing="gelu"), gated=False)
    blocks, order = spread((0,) * fields.size("num_hidden_layers"), layer, attention, mlp)
    tied = fields.flag("tie_word_embeddings", missing=False)
    attention_drops, hidden_drops = dropout(fields, "attention_dropout"), dropout(fields, "hidden_dropout")
    return Architecture(
        name=fields.name,
        family="gpt_neox",
        hidden=hidden,
        vocab=vocab,
        norm="layer",
        tied=tied,
        layer_prefix="gpt_neox.layers",
        blocks=blocks,
        layers=order,
        before=embedding("gpt_neox.embed_in", vocab, hidden),
        after=(*layer_norm("gpt_neox.final_layer_norm", hidden), *head(hidden, vocab, tied=tied)),
        buffers=rotary_buffers("gpt_neox.rotary_emb", rotary),
        facts=Facts(
            dropouts=Dropouts(attention=attention_drops, residual=hidden_drops, embedding=hidden_drops),
            parallel_residual=fields.flag("use_parallel_residual", missing=True),
        ),
    )


def _neox_layer(hidden: int, inner: int, *, bias: bool) -> Weights:
    return (
        *layer_norm("input_layernorm", hidden),
        *layer_norm("post_attention_layernorm", hidden),
        *linear("attention.query_key_value", hidden, 3 * hidden, bias=bias),
        *linear("attention.dense", hidden, hidden, bias=bias),
        *linear("mlp.dense_h_to_4h", hidden, inner, bias=True),
        *linear("mlp.dense_4h_to_h", inner, hidden, bias=True),
    )


def read_starcoder2(fields: Fields) -> Architecture:
    """StarCoder 2: Llama's attention with biases, an MLP without gate, layer norms."""
    dims = read_dims(fields, STARCODER2)
    bias = fields.flag("use_bias", missing=True)
    layer = (
        *attention_weights(dims, bias=bias, out_bias=bias),
        *linear("mlp.c_fc", dims.hidden, dims.intermediate, bias=bias),
        *linear("mlp.c_proj", dims.intermediate, dims.hidden, bias=bias),
        *layer_norm("input_layernorm", dims.hidden),
        *layer_norm("post_attention_layernorm", dims.hidden),
    )
    windows = (fields.optional_size("sliding_window"),) * dims.layers
    mlp = Mlp(dims.intermediate, dims.activation, gated=False)
    blocks = spread(windows, layer, ordinary_attention(dims), mlp)
    dropouts = Dropouts(residual=dropout(fields, "residual_dropout"), embedding=dropout(fields, "embedding_dropout"))
    model = decoder(fields, "starcoder2", dims, blocks, Facts(dropouts=dropouts))
    after = (*layer_norm("model.norm", dims.hidden), *head(dims.hidden, dims.vocab, tied=dims.tied))
    return replace(model, norm="layer", after=after)
