"""Liger's operations of a decoder layer: they keep little beside their inputs, and work in place where they can.

liger-kernel 0.8.5 ops/rms_norm.py, ops/swiglu.py, ops/geglu.py, ops/rope.py. Each is one node of the graph, whose
inputs are made contiguous first (`ensure_contiguous`, outside the graph).
"""

from collections.abc import Mapping

from vramplan.predict.operations.gradients import record_results
from vramplan.predict.tape import FLOAT32, Gradients, Tape, Tensor


def liger_rms_norm(t: Tape, x: Tensor, weight: Tensor, *, in_place: bool, contiguous: bool) -> Tensor:
    """`LigerRMSNormFunction`: keeps the input and a number per row; the output has the input's type.

    `in_place`: its gradient takes the place of the output's. Not `contiguous` is an input that is a part of a larger
    tensor, or by heads where the sequence comes first in memory: the output is by heads there too.
    """
    dense = x if contiguous else t.new(x.shape, x.kind, "norm input, contiguous")
    out = t.new(x.shape, x.kind, "norm output")
    by_heads = not contiguous and len(x.shape) == 4
    out.heads_first = by_heads
    rstd = t.new((x.numel // x.shape[-1],), FLOAT32, "norm rstd")
    if not t.needs_grad(x, weight):
        return out
    saved = t.save((dense, weight, rstd))
    shape, needs = x.shape, x.node is not None
    trained, kind, width = weight.node is not None, weight.kind, weight.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        if len(shape) == 4 and grad.heads_first is not by_heads:
            grad = t.new(shape, grad.kind, "norm output gradient, contiguous")
        rows = t.processors if t.cuda else 1
        partial_sums = t.new((rows, *width), FLOAT32, "norm weight gradient, partial") if trained else None
        to_x = t.view(grad if in_place else t.new(shape, grad.kind, "norm gradient"), shape)
        to_x.heads_first = by_heads
        to_weight = None
        if partial_sums is not None:
            summed = t.new(width, FLOAT32, "norm weight gradient, fp32")
            to_weight = summed if kind is FLOAT32 else t.new(width, kind, "norm weight gradient")
        return to_x if needs else None, to_weight

    return t.record(out, (x, weight), saved, backward)


def liger_gated(t: Tape, gate: Tensor, up: Tensor, *, contiguous: bool) -> Tensor:
    """`LigerSiLUMulFunction`, `LigerGELUMulFunction`: keeps both halves, whose gradients take their places.

    Not `contiguous` are parts of one tensor, which are copied first.
    """
    if not contiguous:
        gate, up = (_copied(t, half, "half of the MLP, contiguous") for half in (gate, up))
    out = t.new(gate.shape, gate.kind, "act * up")
    if not t.needs_grad(gate, up):
        return out
    saved = t.save((gate, up))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return t.view(saved[0], saved[0].shape), t.view(saved[1], saved[1].shape)

    return t.record(out, (gate, up), saved, backward)


def liger_rotated(
    t: Tape, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *, contiguous: bool, half_width_tables: bool
) -> tuple[Tensor, Tensor]:
    """`LigerRopeFunction`: turns queries and keys where they are, and so their gradients; keeps the tables.

    Not `contiguous` are slices of one projection, which are copied first. `half_width_tables` hold each angle once, and
    are copied (gpt-oss: they come transposed).
    """
    copied = query.heads_first or not contiguous
    tables = [cos, sin]
    if half_width_tables:
        tables = [t.new(x.shape, x.kind, "rotary table, contiguous") for x in tables]
    turned = [t.new(x.shape, x.kind, "rotated") if copied else t.view(x, x.shape) for x in (query, key)]
    for x in turned:
        x.heads_first = False
    if not t.needs_grad(query, key):
        return turned[0], turned[1]

    def backward(came: Mapping[int, Tensor]) -> Gradients:
        gradients = [_sequence_first(t, came[i]) for i in sorted(came)]
        return [t.view(gradient, gradient.shape) for gradient in gradients]

    record_results(t, turned, (query, key), t.save(tables), backward)
    return turned[0], turned[1]


def _sequence_first(t: Tape, grad: Tensor) -> Tensor:
    """A gradient in whose memory the sequence comes before the heads: a copy where it does not lie so."""
    return t.new(grad.shape, grad.kind, "gradient, contiguous") if grad.heads_first and grad.shape[1] > 1 else grad


def _copied(t: Tape, x: Tensor, label: str) -> Tensor:
    """A copy inside the node: the graph sees the original."""
    out = t.new(x.shape, x.kind, label)
    out.node = x.node
    return out
