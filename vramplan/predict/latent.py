"""Multi-head latent attention (DeepSeek V2): queries, keys and values expanded from compressed ones."""

from vramplan.architecture import Attention
from vramplan.predict.layer_context import Context
from vramplan.predict.modules import Modules
from vramplan.predict.operations import cast, cat, reshape, split
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import FLOAT32, Gradients, Tape, Tensor


def latent_queries_keys_values(
    t: Tape, m: Modules, c: Context, facts: Attention, x: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
    """`DeepseekV2Attention.forward` up to the attention call; keys and values of all tokens so far.

    And what its variables hold until it returns: the projections' outputs, the rotated parts, the normed latent.
    """
    batch, seq, _ = x.shape
    rope, plain = facts.rotary_dim, facts.head_dim - facts.rotary_dim
    projected = _split_by_heads(t, _queries(t, m, facts, x), facts.heads)
    nope, turning = split(t, projected, [plain, rope])
    compressed = m["self_attn.kv_a_proj_with_mqa"](t, x)
    latent, key_turning = split(t, compressed, [facts.latent_kv, rope])
    latent = reshape(
        t, m.norm(t, "self_attn.kv_a_layernorm", latent, contiguous=False), (batch, 1, seq, facts.latent_kv)
    )
    key_turning = reshape(t, key_turning, (batch, 1, seq, rope))
    turning, key_turning = _turned(t, c, turning), _turned(t, c, key_turning)
    latent, key_turning = c.remember(t, latent, key_turning)  # what is remembered is still compressed
    query = cat(t, [nope, turning], "queries")
    expanded = m["self_attn.kv_b_proj"](t, latent)
    expanded = reshape(t, expanded, (batch, facts.heads, latent.shape[2], plain + facts.value_dim))
    key_plain, value = split(t, expanded, [plain, facts.value_dim])
    held = [t.detach(variable) for variable in (projected, turning, compressed, latent, key_turning)]
    return (query, _filled_keys(t, key_plain, key_turning, facts.head_dim), value), held


def _queries(t: Tape, m: Modules, facts: Attention, x: Tensor) -> Tensor:
    if not facts.latent_q:
        return m["self_attn.q_proj"](t, x)
    return m["self_attn.q_b_proj"](t, m.norm(t, "self_attn.q_a_layernorm", m["self_attn.q_a_proj"](t, x)))


def _split_by_heads(t: Tape, x: Tensor, heads: int) -> Tensor:
    batch, seq, width = x.shape
    return reshape(t, x, (batch, heads, seq, width // heads))


def _turned(t: Tape, c: Context, x: Tensor) -> Tensor:
    """Rotation by complex numbers: the fp32 copy is multiplied, and the gradient by the conjugate."""
    wide = cast(t, x, FLOAT32, "rotated part fp32")
    saved = saved_for(t, wide, *c.tables[False])
    out = own_gradient(t, wide, t.new(wide.shape, FLOAT32, "rotated part"), "rotated part gradient", saved)
    return cast(t, out, x.kind, "rotated part cast")


def _filled_keys(t: Tape, plain: Tensor, turning: Tensor, dim: int) -> Tensor:
    """A new tensor into which both parts are copied; backward copies the gradient for each part and clears it."""
    out = t.new((*plain.shape[:-1], dim), plain.kind, "keys")
    if not t.needs_grad(plain, turning):
        return out
    shape, turning_shape = plain.shape, turning.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        rest = t.new(grad.shape, grad.kind, "keys gradient, cleared")
        to_plain = t.new(shape, grad.kind, "plain part gradient")
        to_turning = t.new(turning_shape, grad.kind, "rotated part gradient")
        del rest
        return to_plain, to_turning

    return t.record(out, (plain, turning), [], backward)
