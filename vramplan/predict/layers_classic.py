"""Decoder layers with layer norms and plain MLPs, line by line as transformers 5.17 has them.

models/{gpt2,gpt_neox,phi,opt,falcon}/modeling_*.py
"""

from vramplan.architecture import Attention, Block
from vramplan.predict.activations import activation
from vramplan.predict.attention_eager import falcon_eager
from vramplan.predict.attention_heads import rotate
from vramplan.predict.decoder import divided, heads, plain_mlp, rotate_both, split_heads
from vramplan.predict.layer_context import Context
from vramplan.predict.modules import Modules
from vramplan.predict.operations import add, add_in_place, cat, clone, dropout, narrow, reshape, scale, split
from vramplan.predict.tape import Tape, Tensor


def _drop(t: Tape, c: Context, x: Tensor) -> Tensor:
    """The residual branch's dropout, where the configuration has one."""
    return dropout(t, x) if c.architecture.facts.dropouts.residual else x


def _joined(t: Tape, out: Tensor, facts: Attention) -> Tensor:
    return reshape(t, out, (*out.shape[:2], facts.heads * facts.value_dim))


def gpt2(t: Tape, m: Modules, c: Context, block: Block, hidden: Tensor) -> Tensor:
    """GPT2Block."""
    residual = hidden
    x = m.norm(t, "ln_1", hidden)
    attended, _weights = _gpt2_attention(t, m, c, block.attention, x)
    x = add(t, attended, residual, "residual")
    residual = x
    x = m.norm(t, "ln_2", x)
    assert block.mlp is not None
    fed = _drop(t, c, plain_mlp(t, m, block.mlp, x, "mlp.c_fc", "mlp.c_proj"))
    return add(t, residual, fed, "layer output")


def _gpt2_attention(t: Tape, m: Modules, c: Context, facts: Attention, x: Tensor) -> tuple[Tensor, Tensor | None]:
    width = facts.heads * facts.head_dim
    query, key, value = (split_heads(t, part, facts.heads) for part in split(t, m["attn.c_attn"](t, x), [width] * 3))
    key, value = c.remember(t, key, value)
    out, weights = c.attend(t, query, key, value, heads(c, facts))
    out = m["attn.c_proj"](t, _joined(t, out, facts))
    return _drop(t, c, out), weights


def gpt_neox(t: Tape, m: Modules, c: Context, block: Block, hidden: Tensor) -> Tensor:
    """GPTNeoXLayer: attention and MLP side by side, as a rule."""
    attended, _weights = _neox_attention(t, m, c, block.attention, m.norm(t, "input_layernorm", hidden))
    attended = _drop(t, c, attended)
    if c.architecture.facts.parallel_residual:
        fed = _drop(t, c, _neox_mlp(t, m, block, m.norm(t, "post_attention_layernorm", hidden)))
        return add(t, add(t, fed, attended, "branches"), hidden, "layer output")
    attended = add(t, attended, hidden, "residual")
    fed = _drop(t, c, _neox_mlp(t, m, block, m.norm(t, "post_attention_layernorm", attended)))
    return add(t, fed, attended, "layer output")


def _neox_mlp(t: Tape, m: Modules, block: Block, x: Tensor) -> Tensor:
    assert block.mlp is not None
    return plain_mlp(t, m, block.mlp, x, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")


def _neox_attention(t: Tape, m: Modules, c: Context, facts: Attention, x: Tensor) -> tuple[Tensor, Tensor | None]:
    fused = split_heads(t, m["attention.query_key_value"](t, x), facts.heads)
    query, key, value = split(t, fused, [facts.head_dim] * 3)
    query, key = _rotated_apart(t, c, query, key)
    key, value = c.remember(t, key, value)
    out, weights = c.attend(t, query, key, value, heads(c, facts))
    out = m["attention.dense"](t, _joined(t, out, facts))
    return out, weights


def _rotated_apart(t: Tape, c: Context, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = c.tables[False]
    return rotate_both(t, query, key, cos, sin, in_turn=False)


def phi(t: Tape, m: Modules, c: Context, block: Block, hidden: Tensor) -> Tensor:
    """PhiDecoderLayer: one norm for attention and MLP side by side."""
    residual = hidden
    x = m.norm(t, "input_layernorm", hidden)
    attended, _weights = _phi_attention(t, m, c, block.attention, x)
    attended = _drop(t, c, attended)
    assert block.mlp is not None
    fed = _drop(t, c, plain_mlp(t, m, block.mlp, x, "mlp.fc1", "mlp.fc2"))
    return add(t, add(t, attended, fed, "branches"), residual, "layer output")


def _phi_attention(t: Tape, m: Modules, c: Context, facts: Attention, x: Tensor) -> tuple[Tensor, Tensor | None]:
    query = split_heads(t, m["self_attn.q_proj"](t, x), facts.heads)
    key = split_heads(t, m["self_attn.k_proj"](t, x), facts.kv_heads)
    value = split_heads(t, m["self_attn.v_proj"](t, x), facts.kv_heads)
    cos, sin = c.tables[False]
    query_part, query_rest = divided(t, query, cos.shape[-1])
    key_part, key_rest = divided(t, key, cos.shape[-1])
    query_part, key_part = rotate(t, query_part, cos, sin), rotate(t, key_part, cos, sin)
    query = cat(t, [query_part, query_rest], "rotated, with the rest")
    key = cat(t, [key_part, key_rest], "rotated, with the rest")
    key, value = c.remember(t, key, value)
    out, weights = c.attend(t, query, key, value, heads(c, facts))
    out = m["self_attn.dense"](t, _joined(t, out, facts))
    return out, weights


def opt(t: Tape, m: Modules, c: Context, block: Block, hidden: Tensor) -> Tensor:
    """OPTDecoderLayer; the 350m model norms behind attention and MLP instead of in front."""
    before = not c.architecture.facts.norm_after_residual
    residual = hidden
    x = m.norm(t, "self_attn_layer_norm", hidden) if before else hidden
    x, _weights = _opt_attention(t, m, c, block.attention, x)
    x = _drop(t, c, x)
    x = add(t, residual, x, "residual")
    x = x if before else m.norm(t, "self_attn_layer_norm", x)
    shape = x.shape
    x = reshape(t, x, (shape[0] * shape[1], shape[2]))
    residual = x
    x = m.norm(t, "final_layer_norm", x) if before else x
    assert block.mlp is not None
    x = m["fc1"](t, x)
    x = activation(t, block.mlp.activation, x)
    x = m["fc2"](t, x)
    x = _drop(t, c, x)
    x = reshape(t, add(t, residual, x, "layer output"), shape)
    return x if before else m.norm(t, "final_layer_norm", x)


def _opt_attention(t: Tape, m: Modules, c: Context, facts: Attention, x: Tensor) -> tuple[Tensor, Tensor | None]:
    query = split_heads(t, scale(t, m["self_attn.q_proj"](t, x), "scaled query"), facts.heads)
    key, value = m["self_attn.k_proj"](t, x), m["self_attn.v_proj"](t, x)
    key, value = split_heads(t, key, facts.kv_heads), split_heads(t, value, facts.kv_heads)
    key, value = c.remember(t, key, value)
    out, weights = c.attend(t, query, key, value, heads(c, facts))
    out = m["self_attn.out_proj"](t, _joined(t, out, facts))
    return out, weights


def falcon(t: Tape, m: Modules, c: Context, block: Block, hidden: Tensor) -> Tensor:
    """FalconDecoderLayer."""
    parallel = c.architecture.facts.parallel_residual
    residual = hidden
    two = "ln_mlp.weight" in m.tensors
    x = m.norm(t, "ln_attn" if two else "input_layernorm", hidden)
    for_mlp = m.norm(t, "ln_mlp", hidden) if two else x
    attended, weights = _falcon_attention(t, m, c, block.attention, x)
    if not parallel:
        residual = add(t, residual, attended, "residual")
        for_mlp = m.norm(t, "post_attention_layernorm", residual)
    fed = _neox_mlp(t, m, block, for_mlp)
    if parallel:
        fed = add_in_place(t, fed, attended)
    output = add(t, residual, _drop(t, c, fed), "layer output")
    c.returned = weights
    return output


def _falcon_attention(t: Tape, m: Modules, c: Context, facts: Attention, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Slices of one projection."""
    batch, seq, _ = x.shape
    fused = m["self_attention.query_key_value"](t, x)
    dim = facts.head_dim
    parts = [narrow(t, fused, heads * dim) for heads in (facts.heads, facts.kv_heads, facts.kv_heads)]
    if facts.kv_heads < facts.heads:  # `fused_qkv[..., [-2], :]`: a list as index copies
        parts[1:] = [clone(t, part, "key or value") for part in parts[1:]]
    query, key, value = (reshape(t, part, (batch, part.shape[-1] // dim, seq, dim)) for part in parts)
    del parts
    if facts.rotary_dim:
        query, key = _rotated_apart(t, c, query, key)
    key, value = c.remember(t, key, value)
    if c.attention == "eager":
        out, weights = falcon_eager(t, query, key, value, c.masks.get(False), heads(c, facts), x.kind)
        return m["self_attention.dense"](t, _joined(t, out, facts)), weights
    out, _weights = c.attend(t, query, key, value, heads(c, facts))
    return m["self_attention.dense"](t, _joined(t, out, facts)), None
