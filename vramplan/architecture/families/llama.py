"""Llama and the families that share its layer: Mistral, Qwen 2 to 3 (dense), Granite, OLMo 2.

Names, order and biases: transformers 5.17.0, models/{llama,mistral,qwen2,qwen3,granite,olmo2}/modeling_*.py.
"""

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
from vramplan.architecture.model import Architecture, Facts
from vramplan.architecture.parts import Weights, layer_windows, rms_norm, spread

LLAMA = Defaults(even=True)
MISTRAL = Defaults(kv_heads=8)
QWEN2 = Defaults(kv_heads=32)
QWEN3 = Defaults(kv_heads=32, head_dim=128)
GRANITE = OLMO2 = Defaults()


def read_llama(fields: Fields) -> Architecture:
    """Llama 1 to 3.x and everything published under its name (TinyLlama, SmolLM, Yi, DeepSeek Coder)."""
    dims = read_dims(fields, LLAMA)
    bias, mlp_bias = fields.flag("attention_bias", missing=False), fields.flag("mlp_bias", missing=False)
    layer = _plain_layer(dims, bias=bias, out_bias=bias, mlp_bias=mlp_bias)
    attention, mlp = ordinary_attention(dims), ordinary_mlp(dims)
    return decoder(fields, "llama", dims, spread((0,) * dims.layers, layer, attention, mlp))


def read_mistral(fields: Fields) -> Architecture:
    """Mistral: every layer sees the same window."""
    dims = read_dims(fields, MISTRAL)
    layer = _plain_layer(dims, bias=False, out_bias=False, mlp_bias=False)
    attention, mlp = ordinary_attention(dims), ordinary_mlp(dims)
    windows = (fields.optional_size("sliding_window", missing=4096),) * dims.layers
    return decoder(fields, "mistral", dims, spread(windows, layer, attention, mlp))


def read_qwen2(fields: Fields) -> Architecture:
    """Qwen 2 and 2.5: biases on q, k and v that no key turns off."""
    dims = read_dims(fields, QWEN2)
    layer = _plain_layer(dims, bias=True, out_bias=False, mlp_bias=False)
    attention, mlp = ordinary_attention(dims), ordinary_mlp(dims)
    return decoder(fields, "qwen2", dims, spread(qwen_windows(fields, dims), layer, attention, mlp))


def read_qwen3(fields: Fields) -> Architecture:
    """Qwen 3 (dense): queries and keys are normed per head."""
    dims = read_dims(fields, QWEN3)
    bias = fields.flag("attention_bias", missing=False)
    layer = _plain_layer(dims, bias=bias, out_bias=bias, mlp_bias=False, qk_norm=head_norms(dims))
    attention = ordinary_attention(dims, qk_norm="head")
    mlp = ordinary_mlp(dims)
    return decoder(fields, "qwen3", dims, spread(qwen_windows(fields, dims), layer, attention, mlp))


def read_granite(fields: Fields) -> Architecture:
    """Granite: Llama with multipliers; the products are tensors of their own even when a multiplier is 1."""
    dims = read_dims(fields, GRANITE)
    bias, mlp_bias = fields.flag("attention_bias", missing=False), fields.flag("mlp_bias", missing=False)
    layer = _plain_layer(dims, bias=bias, out_bias=bias, mlp_bias=mlp_bias)
    attention, mlp = ordinary_attention(dims), ordinary_mlp(dims)
    facts = Facts(
        scaled_embedding=fields.number("embedding_multiplier", missing=1.0) != 0,
        scaled_logits=fields.number("logits_scaling", missing=1.0) != 0,
    )
    return decoder(fields, "granite", dims, spread((0,) * dims.layers, layer, attention, mlp), facts)


def read_olmo2(fields: Fields) -> Architecture:
    """OLMo 2: no norm before attention and MLP, one after each; queries and keys are normed over all heads."""
    dims = read_dims(fields, OLMO2)
    bias = fields.flag("attention_bias", missing=False)
    wide, narrow = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    qk_norm = (*rms_norm("self_attn.q_norm", wide), *rms_norm("self_attn.k_norm", narrow))
    layer = (
        *attention_weights(dims, bias=bias, out_bias=bias, qk_norm=qk_norm),
        *gated_mlp("mlp", dims.hidden, dims.intermediate),
        *norms(dims.hidden, "post_attention_layernorm", "post_feedforward_layernorm"),
    )
    attention = ordinary_attention(dims, qk_norm="full")
    mlp = ordinary_mlp(dims)
    return decoder(fields, "olmo2", dims, spread((0,) * dims.layers, layer, attention, mlp))


def qwen_windows(fields: Fields, dims: Dims) -> tuple[int, ...]:
    """Windows of Qwen 2 and 3: off unless `use_sliding_window`, and then from layer `max_window_layers` on."""
    if not fields.flag("use_sliding_window", missing=False):
        return layer_windows(fields, dims.layers, 0, ("full_attention",) * dims.layers)
    window = fields.optional_size("sliding_window", missing=4096)
    full = min(fields.size("max_window_layers", missing=28, least=0), dims.layers) if window else dims.layers
    pattern = ("full_attention",) * full + ("sliding_attention",) * (dims.layers - full)
    return layer_windows(fields, dims.layers, window, pattern)


def _plain_layer(dims: Dims, *, bias: bool, out_bias: bool, mlp_bias: bool, qk_norm: Weights = ()) -> Weights:
    """Attention, gated MLP, a norm before each."""
    return (
        *attention_weights(dims, bias=bias, out_bias=out_bias, qk_norm=qk_norm),
        *gated_mlp("mlp", dims.hidden, dims.intermediate, bias=mlp_bias),
        *norms(dims.hidden, "input_layernorm", "post_attention_layernorm"),
    )
