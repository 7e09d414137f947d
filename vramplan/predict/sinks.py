"""Attention with a learned sink per head (gpt-oss), line by line as transformers 5.17 has it.

models/gpt_oss/modeling_gpt_oss.py: `eager_attention_forward` and `_apply_rotary_emb`.
"""

from vramplan.predict.attention_heads import batched, heads_last, repeat_kv, transposed
from vramplan.predict.attention_sdpa import Heads
from vramplan.predict.operations import add, cast, cat, dropout, mul, narrow, scale, softmax, split, subtract, wider
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import INT64, Gradients, Tape, Tensor
from vramplan.predict.template import Derived, Padding, stretched


def rotate_halves(t: Tape, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`_apply_rotary_emb`: the halves of each head, turned against each other and joined again."""
    half = x.shape[-1] // 2
    first, second = split(t, x, [half, half])
    turned = subtract(t, mul(t, first, cos, "x1 * cos"), mul(t, second, sin, "x2 * sin"), "rotated, first half")
    other = add(t, mul(t, second, cos, "x2 * cos"), mul(t, first, sin, "x1 * sin"), "rotated, second half")
    return cat(t, [turned, other], "rotated")


def eager_with_sinks(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, sinks: Tensor
) -> tuple[Tensor, Tensor]:
    """`eager_attention_forward`: the sink is one more column of scores, which the softmax sees and the product not."""
    key_states = repeat_kv(t, key, spec.heads)
    value_states = repeat_kv(t, value, spec.heads)
    weights = scale(t, batched(t, query, transposed(t, key_states), "scores"), "scaled scores")
    if mask is not None:
        weights = add(t, weights, mask, "masked scores")
    combined = _with_sinks(t, weights, sinks)
    combined = subtract(t, combined, _row_maximum(t, combined), "scores and sinks less their maximum")
    probabilities = softmax(t, combined, combined.kind)
    scores = narrow(t, probabilities, weights.shape[-1])
    weights = cast(t, dropout(t, scores) if spec.dropout else scores, value_states.kind, "attention weights")
    out = batched(t, weights, value_states, "attention output")
    return heads_last(t, out, copy=True), weights


def _with_sinks(t: Tape, weights: Tensor, sinks: Tensor) -> Tensor:
    """`cat([weights, sinks], -1)`; autocast first makes both the wider of their types (its list `promote`)."""
    kind = wider(weights.kind, sinks.kind)
    if t.autocast is not None:
        weights = cast(t, weights, kind, "scores cast")
    out = t.new((*weights.shape[:-1], _one_more(weights.shape)), kind, "scores and sinks")
    if not t.needs_grad(weights, sinks):
        return out
    shape, per_head, trained = weights.shape, sinks.shape, sinks.node is not None
    scored = weights.node is not None

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_sinks = t.new(per_head, grad.kind, "sinks' gradient") if trained else None
        return t.view(grad, shape) if scored else None, to_sinks

    return t.record(out, (weights, sinks), [], backward)


def _one_more(shape: tuple[int, ...]) -> int:
    """A column more than there are keys, which are as many as the queries, or what the cache remembers."""
    queries, keys = shape[-2:]
    if isinstance(keys, Derived) and isinstance(keys.rule, Padding):
        return stretched(keys - keys.rule.extra, extra=keys.rule.extra + 1)
    return stretched(keys, extra=1) if keys == queries else keys + 1


def _row_maximum(t: Tape, x: Tensor) -> Tensor:
    """`x.max(-1, keepdim=True).values`: saves where the maximum was; the gradient is scattered into zeros."""
    rows = (*x.shape[:-1], 1)
    values, where = t.new(rows, x.kind, "row maximum"), t.new(rows, INT64, "position of the row maximum")
    return own_gradient(t, x, values, "row maximum gradient", saved_for(t, x, where))
