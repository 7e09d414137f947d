"""Phi 1 and 2 (parallel residual, biases everywhere) and Phi 3 and 4 (Llama's layer with fused projections).

transformers 5.17.0, models/{phi,phi3}/modeling_*.py.
"""

from vramplan.architecture.families.dims import Defaults, Dims, read_dims
from vramplan.architecture.families.skeleton import decoder, norms
from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture, Attention, Dropouts, Facts, Mlp, QkNorm
from vramplan.architecture.parts import (
    Weights,
    dropout,
    embedding,
    head,
    layer_norm,
    linear,
    partial_rotary,
    rotary_buffers,
    spread,
)

PHI = Defaults(activation="gelu_new")
PHI3 = Defaults()


def read_phi(fields: Fields) -> Architecture:
    """Phi 1, 1.5 and 2: attention and MLP side by side behind one norm; the head has a bias."""
    dims = read_dims(fields, PHI)
    qk_norm: QkNorm = "head" if fields.flag("qk_layernorm", missing=False) else ""
    rotary = partial_rotary(fields, dims.head_dim, missing=0.5)
    d = dims.head_dim
    attention = Attention(dims.heads, dims.kv_heads, d, d, rotary_dim=rotary, qk_norm=qk_norm)
    mlp = Mlp(dims.intermediate, dims.activation, gated=False)
    blocks, layers = spread((0,) * dims.layers, _phi_layer(dims, normed=bool(qk_norm)), attention, mlp)
    return Architecture(
        name=fields.name,
        family="phi",
        hidden=dims.hidden,
        vocab=dims.vocab,
        norm="layer",
        tied=dims.tied,
        layer_prefix="model.layers",
        blocks=blocks,
        layers=layers,
        before=embedding("model.embed_tokens", dims.vocab, dims.hidden),
        after=(
            *layer_norm("model.final_layernorm", dims.hidden),
            *head(dims.hidden, dims.vocab, tied=dims.tied, bias=True),
        ),
        buffers=rotary_buffers("model.rotary_emb", rotary),
        facts=Facts(
            dropouts=Dropouts(
                attention=dropout(fields, "attention_dropout"),
                residual=dropout(fields, "resid_pdrop"),
                embedding=dropout(fields, "embd_pdrop"),
            ),
            parallel_residual=True,
        ),
    )


def _phi_layer(dims: Dims, *, normed: bool) -> Weights:
    wide, narrow = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    share = dims.hidden // dims.heads
    qk_norms = ("self_attn.q_layernorm", "self_attn.k_layernorm") if normed else ()
    return (
        *linear("self_attn.q_proj", dims.hidden, wide, bias=True),
        *linear("self_attn.k_proj", dims.hidden, narrow, bias=True),
        *linear("self_attn.v_proj", dims.hidden, narrow, bias=True),
        *linear("self_attn.dense", wide, dims.hidden, bias=True),
        *(weight for name in qk_norms for weight in layer_norm(name, share)),
        *linear("mlp.fc1", dims.hidden, dims.intermediate, bias=True),
        *linear("mlp.fc2", dims.intermediate, dims.hidden, bias=True),
        *layer_norm("input_layernorm", dims.hidden),
    )


def read_phi3(fields: Fields) -> Architecture:
    """Phi 3 and 4: q, k and v from one projection, gate and up from another."""
    dims = read_dims(fields, PHI3)
    d = dims.head_dim
    rotary = partial_rotary(fields, d, missing=1.0)
    attention = Attention(dims.heads, dims.kv_heads, d, d, rotary_dim=rotary, fused_qkv=True)
    mlp = Mlp(dims.intermediate, dims.activation, gated=True, fused_gate=True)
    layer = (
        *linear("self_attn.o_proj", dims.heads * d, dims.hidden),
        *linear("self_attn.qkv_proj", dims.hidden, (dims.heads + 2 * dims.kv_heads) * d),
        *linear("mlp.gate_up_proj", dims.hidden, 2 * dims.intermediate),
        *linear("mlp.down_proj", dims.intermediate, dims.hidden),
        *norms(dims.hidden, "input_layernorm", "post_attention_layernorm"),
    )
    windows = (fields.optional_size("sliding_window"),) * dims.layers
    facts = Facts(dropouts=Dropouts(residual=dropout(fields, "resid_pdrop")))
    return decoder(fields, "phi3", dims, spread(windows, layer, attention, mlp), facts)
