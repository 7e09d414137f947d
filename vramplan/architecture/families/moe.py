"""Mixtures of experts: Mixtral, Qwen 3 MoE, gpt-oss, DeepSeek V2.

The experts of transformers 5.17.0 are 3-D parameters and their routers bare parameters: neither is an nn.Linear, so
neither is quantised. models/{mixtral,qwen3_moe,gpt_oss,deepseek_v2}/modeling_*.py.
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
from vramplan.architecture.model import Architecture, Attention, Block, Experts, Weight, WeightKind
from vramplan.architecture.parts import Weights, layer_windows, linear, rms_norm

MIXTRAL = Defaults(kv_heads=8)
QWEN3_MOE = Defaults(kv_heads=4)
GPT_OSS = Defaults(kv_heads=8, head_dim=64)
DEEPSEEK_V2 = Defaults(even=True)


def stacked(name: str, *shape: int) -> Weight:
    """One parameter that holds every expert."""
    return Weight(f"mlp.experts.{name}", WeightKind.EXPERTS, shape)


def gated_experts(experts: Experts, hidden: int) -> Weights:
    """gate and up of every expert in one parameter, down in another; [experts, out, in]."""
    return (
        stacked("gate_up_proj", experts.count, 2 * experts.intermediate, hidden),
        stacked("down_proj", experts.count, hidden, experts.intermediate),
    )


def router(name: str, experts: Experts, hidden: int) -> Weight:
    """The bare parameter that scores the experts."""
    return Weight(f"mlp.{name}.weight", WeightKind.ROUTER, (experts.count, hidden))


def read_mixtral(fields: Fields) -> Architecture:
    """Mixtral: every layer a mixture."""
    dims = read_dims(fields, MIXTRAL)
    experts = Experts(
        count=fields.size("num_local_experts", "num_experts", missing=8),
        per_token=fields.size("num_experts_per_tok", missing=2),
        intermediate=dims.intermediate,
        activation=dims.activation,
    )
    layer = (
        *attention_weights(dims, bias=False, out_bias=False),
        router("gate", experts, dims.hidden),
        *gated_experts(experts, dims.hidden),
        *norms(dims.hidden, "input_layernorm", "post_attention_layernorm"),
    )
    attention = replace(ordinary_attention(dims), window=fields.optional_size("sliding_window"))
    return decoder(fields, "mixtral", dims, ((Block(layer, attention, None, experts),), (0,) * dims.layers))


def read_qwen3_moe(fields: Fields) -> Architecture:
    """Qwen 3 MoE: mixtures except in `mlp_only_layers` and between steps of `decoder_sparse_step`."""
    dims = read_dims(fields, QWEN3_MOE)
    bias = fields.flag("attention_bias", missing=False)
    window = fields.optional_size("sliding_window", missing=4096)
    window = window if fields.flag("use_sliding_window", missing=False) else 0
    attention = replace(ordinary_attention(dims, qk_norm="head"), window=window)
    around = attention_weights(dims, bias=bias, out_bias=bias, qk_norm=head_norms(dims))
    sparse = _qwen3_sparse(fields, dims, around, attention)
    dense = Block(
        _with_norms(dims, around, gated_mlp("mlp", dims.hidden, dims.intermediate)),
        attention,
        ordinary_mlp(dims),
        None,
    )
    step, only_dense = fields.size("decoder_sparse_step", missing=1), set(fields.sizes("mlp_only_layers"))
    kinds = [dense if i in only_dense or (i + 1) % step else sparse for i in range(dims.layers)]
    return decoder(fields, "qwen3_moe", dims, _numbered(kinds))


def _qwen3_sparse(fields: Fields, dims: Dims, around: Weights, attention: Attention) -> Block:
    experts = Experts(
        count=fields.size("num_experts", "num_local_experts", missing=128),
        per_token=fields.size("num_experts_per_tok", missing=8),
        intermediate=fields.size("moe_intermediate_size", missing=768),
        activation=dims.activation,
        shares=fields.flag("norm_topk_prob", missing=False),
    )
    mixture = (*gated_experts(experts, dims.hidden), router("gate", experts, dims.hidden))
    return Block(_with_norms(dims, around, mixture), attention, None, experts)


def read_gpt_oss(fields: Fields) -> Architecture:
    """gpt-oss: a learned sink per head, windows in every other layer, biases everywhere, experts stored [in, out].

    The norms stay fp32 when the model is loaded in fp16 (`_keep_in_fp32_modules`).
    """
    dims = read_dims(fields, GPT_OSS)
    bias = fields.flag("attention_bias", missing=True)
    experts = Experts(
        count=fields.size("num_local_experts", "num_experts"),
        per_token=fields.size("num_experts_per_tok", "experts_per_token", missing=4),
        intermediate=dims.intermediate,
        activation=dims.activation,
        bias=True,
    )
    layer = (
        Weight("self_attn.sinks", WeightKind.OTHER, (dims.heads,)),
        *attention_weights(dims, bias=bias, out_bias=bias),
        *_oss_mixture(experts, dims.hidden),
        *norms(dims.hidden, "input_layernorm", "post_attention_layernorm"),
    )
    pattern = tuple("full_attention" if i % 2 else "sliding_attention" for i in range(dims.layers))
    windows = layer_windows(fields, dims.layers, fields.optional_size("sliding_window", missing=128), pattern)
    attention = replace(ordinary_attention(dims), sinks=True)
    by_window = {w: Block(layer, replace(attention, window=w), None, experts) for w in dict.fromkeys(windows)}
    return decoder(fields, "gpt_oss", dims, _numbered([by_window[window] for window in windows]))


def _oss_mixture(experts: Experts, hidden: int) -> Weights:
    count, wide = experts.count, experts.intermediate
    return (
        router("router", experts, hidden),
        Weight("mlp.router.bias", WeightKind.BIAS, (count,)),
        stacked("gate_up_proj", count, hidden, 2 * wide),
        stacked("gate_up_proj_bias", count, 2 * wide),
        stacked("down_proj", count, wide, hidden),
        stacked("down_proj_bias", count, hidden),
    )


def read_deepseek_v2(fields: Fields) -> Architecture:
    """DeepSeek V2: latent attention; the first layers dense, then routed experts beside shared ones."""
    dims = read_dims(fields, DEEPSEEK_V2)
    attention = _latent(fields, dims)
    around = _latent_weights(dims, attention, bias=fields.flag("attention_bias", missing=False))
    mlp_bias = fields.flag("mlp_bias", missing=False)
    dense = Block(
        _with_norms(dims, around, gated_mlp("mlp", dims.hidden, dims.intermediate, bias=mlp_bias)),
        attention,
        ordinary_mlp(dims),
        None,
    )
    sparse = _deepseek_sparse(fields, dims, around, attention, bias=mlp_bias)
    first = fields.size("first_k_dense_replace", missing=0, least=0)
    return decoder(fields, "deepseek_v2", dims, _numbered([dense if i < first else sparse for i in range(dims.layers)]))


def _latent(fields: Fields, dims: Dims) -> Attention:
    rope = fields.size("qk_rope_head_dim", missing=64)
    return Attention(
        heads=dims.heads,
        kv_heads=dims.heads,  # keys and values are expanded from the latent for every head
        head_dim=fields.size("qk_nope_head_dim", missing=128) + rope,
        value_dim=fields.size("v_head_dim", missing=128),
        rotary_dim=rope,
        latent_q=fields.optional_size("q_lora_rank", missing=1536),
        latent_kv=fields.size("kv_lora_rank", missing=512),
    )


def _latent_weights(dims: Dims, a: Attention, *, bias: bool) -> Weights:
    queries = a.heads * a.head_dim
    direct = linear("self_attn.q_proj", dims.hidden, queries)
    compressed = (
        *linear("self_attn.q_a_proj", dims.hidden, a.latent_q, bias=bias),
        *rms_norm("self_attn.q_a_layernorm", a.latent_q),
        *linear("self_attn.q_b_proj", a.latent_q, queries),
    )
    return (
        *(compressed if a.latent_q else direct),
        *linear("self_attn.kv_a_proj_with_mqa", dims.hidden, a.latent_kv + a.rotary_dim, bias=bias),
        *rms_norm("self_attn.kv_a_layernorm", a.latent_kv),
        *linear("self_attn.kv_b_proj", a.latent_kv, a.heads * (a.head_dim - a.rotary_dim + a.value_dim)),
        *linear("self_attn.o_proj", a.heads * a.value_dim, dims.hidden, bias=bias),
    )


def _deepseek_sparse(fields: Fields, dims: Dims, around: Weights, attention: Attention, *, bias: bool) -> Block:
    width = fields.size("moe_intermediate_size", missing=1407)
    experts = Experts(
        count=fields.size("n_routed_experts", "num_experts", missing=64),
        per_token=fields.size("num_experts_per_tok"),
        intermediate=width,
        activation=dims.activation,
    )
    shared = width * fields.size("n_shared_experts", missing=2)
    mixture = (
        *gated_experts(experts, dims.hidden),
        router("gate", experts, dims.hidden),
        *gated_mlp("mlp.shared_experts", dims.hidden, shared, bias=bias),
    )
    return Block(_with_norms(dims, around, mixture), attention, None, experts)


def _with_norms(dims: Dims, attention: Weights, feed_forward: Weights) -> Weights:
    return (*attention, *feed_forward, *norms(dims.hidden, "input_layernorm", "post_attention_layernorm"))


def _numbered(layers: list[Block]) -> tuple[tuple[Block, ...], tuple[int, ...]]:
    """The distinct blocks of a list of layers, and which one each layer is."""
    numbers: dict[int, int] = {}
    kinds: list[Block] = []
    for block in layers:
        if id(block) not in numbers:
            numbers[id(block)] = len(kinds)
            kinds.append(block)
    return tuple(kinds), tuple(numbers[id(block)] for block in layers)
