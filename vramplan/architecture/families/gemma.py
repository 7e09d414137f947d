"""Gemma 1 to 3 (text): scaled embeddings, tied head, and from Gemma 2 on norms on both sides of attention and MLP.

transformers 5.17.0, models/{gemma,gemma2,gemma3}/modeling_*.py.
"""

from dataclasses import replace

from vramplan.architecture.families.dims import Defaults, Dims, read_dims
from vramplan.architecture.families.skeleton import (
    attention_weights,
    decoder,
    gated_mlp,
    head_norms,
    norms,
    ordinary_attention,
    ordinary_mlp,
)
from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture, Facts, QkNorm, Weight, WeightKind
from vramplan.architecture.parts import layer_windows, rotary_buffers, spread

TANH = "gelu_pytorch_tanh"
GEMMA = Defaults(kv_heads=16, head_dim=256, activation=TANH, tied=True)
GEMMA2 = Defaults(kv_heads=4, head_dim=256, activation=TANH, activation_key="hidden_activation", tied=True, even=True)
# The published Gemma 3 text configurations leave out what equals the class's own values, vocabulary and heads included.
GEMMA3 = replace(GEMMA2, vocab=262_208, heads=8)

#: A 0-d tensor in the model's dtype that multiplies the embeddings.
EMBED_SCALE = Weight("model.embed_tokens.embed_scale", WeightKind.BUFFER, ())

FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read_gemma(fields: Fields) -> Architecture:
    """Gemma 1: Llama's layer with wide heads."""
    dims = read_dims(fields, GEMMA)
    bias = fields.flag("attention_bias", missing=False)
    layer = (
        *attention_weights(dims, bias=bias, out_bias=bias),
        *gated_mlp("mlp", dims.hidden, dims.intermediate),
        *norms(dims.hidden, "input_layernorm", "post_attention_layernorm"),
    )
    attention = ordinary_attention(dims)
    mlp = ordinary_mlp(dims)
    blocks = spread((0,) * dims.layers, layer, attention, mlp)
    return _with_scale(decoder(fields, "gemma", dims, blocks))


def read_gemma2(fields: Fields) -> Architecture:
    """Gemma 2: every other layer has a window; scores and logits are soft-capped."""
    dims = read_dims(fields, GEMMA2)
    pattern = tuple("full_attention" if i % 2 else "sliding_attention" for i in range(dims.layers))
    windows = layer_windows(fields, dims.layers, fields.optional_size("sliding_window", missing=4096), pattern)
    softcap = fields.number("attn_logit_softcapping", missing=50.0) > 0
    return _two_sided(fields, "gemma2", dims, windows, softcap=softcap, logit_softcap=30.0)


def read_gemma3(fields: Fields) -> Architecture:
    """Gemma 3 (text): one layer in six sees everything; queries and keys are normed; two rotary bases."""
    dims = read_dims(fields, GEMMA3)
    every = fields.size("sliding_window_pattern", missing=6)
    pattern = tuple("sliding_attention" if (i + 1) % every else "full_attention" for i in range(dims.layers))
    window = fields.optional_size("sliding_window", missing=4096)
    if fields.flag("use_bidirectional_attention", missing=False):
        window = window // 2 + 1
    windows = layer_windows(fields, dims.layers, window, pattern)
    softcap = fields.number("attn_logit_softcapping", missing=0.0) > 0
    model = _two_sided(fields, "gemma3_text", dims, windows, softcap=softcap, logit_softcap=0.0, qk_norm="head")
    kinds = sorted(set(fields.words("layer_types") or pattern))
    rotary = (w for kind in kinds for w in rotary_buffers("model.rotary_emb", dims.head_dim, prefix=f"{kind}_"))
    return replace(model, buffers=(EMBED_SCALE, *rotary), facts=replace(model.facts, rotary_by_window=True))


def _two_sided(
    fields: Fields, family: str, dims: Dims, windows: tuple[int, ...], *, softcap: bool, logit_softcap: float,
    qk_norm: QkNorm = "",
) -> Architecture:  # fmt: skip
    """Gemma 2 and 3: four norms per layer."""
    bias = fields.flag("attention_bias", missing=False)
    layer = (
        *attention_weights(dims, bias=bias, out_bias=bias, qk_norm=head_norms(dims) if qk_norm else ()),
        *gated_mlp("mlp", dims.hidden, dims.intermediate),
        *norms(dims.hidden, *FOUR_NORMS),
    )
    attention = replace(ordinary_attention(dims, qk_norm=qk_norm), softcap=softcap)
    mlp = ordinary_mlp(dims)
    facts = Facts(capped_logits=fields.number("final_logit_softcapping", missing=logit_softcap) != 0)
    return _with_scale(decoder(fields, family, dims, spread(windows, layer, attention, mlp), facts))


def _with_scale(model: Architecture) -> Architecture:
    """The model with its embedding scale, which is a buffer."""
    return replace(model, buffers=(EMBED_SCALE, *model.buffers), facts=replace(model.facts, scaled_embedding=True))
