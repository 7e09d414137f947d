"""Attention as transformers' own code computes it (`attn_implementation="eager"`): every score is a tensor."""

from vramplan.predict.attention_heads import batched, broadcast_heads, heads_last, repeat_kv, transposed
from vramplan.predict.attention_sdpa import Heads
from vramplan.predict.linear import lowered
from vramplan.predict.operations import add, cast, dropout, pointwise, scale, softmax
from vramplan.predict.tape import FLOAT32, Gradients, Kind, Tape, Tensor


def eager(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads
) -> tuple[Tensor, Tensor]:
    """`eager_attention_forward` of modeling_llama.py: scores of every pair of positions, softmax in fp32."""
    laid_out = spec.grouped and spec.kv_heads > 1  # repeated heads are copies; a single head is still a view
    key_states = repeat_kv(t, key, spec.heads)
    value_states = repeat_kv(t, value, spec.heads)
    weights = scale(
        t,
        batched(
            t,
            query,
            transposed(t, key_states),
            "scores",
            a_permuted=not spec.heads_first,
            b_permuted=not laid_out and not spec.heads_first,
        ),
        "scaled scores",
    )
    if spec.softcap:
        weights = scale(t, weights, "capped scores")
        weights = pointwise(t, weights, "tanh of scores", saves="result")
        weights = scale(t, weights, "soft-capped scores")
    if mask is not None:
        weights = add(t, weights, mask, "masked scores")
    weights = cast(t, softmax(t, weights, FLOAT32), query.kind, "attention weights")
    if spec.dropout:
        weights = dropout(t, weights)
    out = batched(t, weights, value_states, "attention output", b_permuted=not laid_out)
    return heads_last(t, out, copy=True), weights


def falcon_eager(
    t: Tape, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, spec: Heads, kind: Kind
) -> tuple[Tensor, Tensor]:
    """FalconAttention's own: scores are divided in place and masked, the softmax is in `kind`, the layer's input's."""
    keys = transposed(t, broadcast_heads(t, lowered(t, key, "key cast"), spec.heads))
    scores = _scaled_in_place(t, batched(t, query, keys, "scores"))
    del keys
    masked = scores if mask is None else add(t, scores, mask, "masked scores")
    weights = softmax(t, masked, kind)
    del masked, scores
    low = lowered(t, weights, "attention weights cast")
    out = batched(t, low, broadcast_heads(t, lowered(t, value, "value cast"), spec.heads), "attention output")
    del low
    return heads_last(t, out, copy=True), weights


def _scaled_in_place(t: Tape, x: Tensor) -> Tensor:
    """`x /= number`: x's storage; the gradient is divided into a new tensor."""
    out = t.view(x, x.shape)
    if not t.needs_grad(x):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.like(grad, grad.kind, "scaled scores gradient"),)

    return t.record(out, (x,), [], backward)
