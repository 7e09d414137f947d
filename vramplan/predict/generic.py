"""A stand-in for layers that are not written down: Llama's with the model's own sizes, always with a warning."""

from dataclasses import replace

from vramplan.architecture import Architecture, Attention, Block, Mlp, Weight, WeightKind


def stand_in(architecture: Architecture) -> Architecture:
    """The architecture with each layer's weights under Llama's names; sizes, counts and what stands around stay."""
    blocks = tuple(
        replace(block, weights=_weights(block, architecture.hidden), attention=_attention(block), mlp=_mlp(block))
        for block in architecture.blocks
    )
    return replace(architecture, family="llama", blocks=blocks, norm="rms")


def _attention(block: Block) -> Attention:
    return replace(block.attention, fused_qkv=False, qk_norm="", latent_kv=0, latent_q=0, sinks=False)


def _mlp(block: Block) -> Mlp | None:
    return None if block.mlp is None else replace(block.mlp, fused_gate=False, gated=True, activation="silu")


def _weights(block: Block, hidden: int) -> tuple[Weight, ...]:
    attention = block.attention
    wide, narrow = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    made = [
        _linear("self_attn.q_proj", hidden, wide),
        _linear("self_attn.k_proj", hidden, narrow),
        _linear("self_attn.v_proj", hidden, attention.kv_heads * attention.value_dim),
        _linear("self_attn.o_proj", attention.heads * attention.value_dim, hidden),
    ]
    if block.mlp is not None:
        inner = block.mlp.intermediate
        made += [_linear("mlp.gate_proj", hidden, inner), _linear("mlp.up_proj", hidden, inner)]
        made.append(_linear("mlp.down_proj", inner, hidden))
    if block.experts is not None:
        count, inner = block.experts.count, block.experts.intermediate
        made.append(Weight("mlp.gate.weight", WeightKind.ROUTER, (count, hidden)))
        made.append(Weight("mlp.experts.gate_up_proj", WeightKind.EXPERTS, (count, 2 * inner, hidden)))
        made.append(Weight("mlp.experts.down_proj", WeightKind.EXPERTS, (count, hidden, inner)))
    norms = ("input_layernorm", "post_attention_layernorm")
    made += [Weight(f"{name}.weight", WeightKind.NORM, (hidden,)) for name in norms]
    return tuple(made)


def _linear(path: str, inputs: int, outputs: int) -> Weight:
    return Weight(f"{path}.weight", WeightKind.LINEAR, (outputs, inputs))
