"""Liger's mixture of experts: one function for routing, both products and their backward.

liger-kernel 0.8.5 ops/fused_moe.py, `LigerFusedMoEFunction`. Its backward makes the gradients of all experts' weights,
also where they are frozen and nobody takes them.
"""

from vramplan.architecture import Experts
from vramplan.predict.operations import reshape
from vramplan.predict.tape import INT32, Gradients, Tape, Tensor

#: `BLOCK_M_TOKEN`: rows of an expert that a block of threads takes.
_TILE = 64
#: Choices of experts that a block counts.
_COUNTED = 1024


def liger_experts(
    t: Tape, x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, indices: Tensor, experts: Experts
) -> Tensor:
    """The experts' weighted sum for tokens [tokens, hidden], whose experts are `indices` [tokens, chosen]."""
    tokens, hidden = x.shape
    x = reshape(t, x, x.shape)  # `LigerExperts.forward` views what has two dimensions already
    rows = tokens * indices.shape[1]
    chosen = t.new(indices.shape, INT32, "chosen experts")
    counts, routing = _routing(t, experts, tokens, rows)
    before = t.new((rows, 2 * experts.intermediate), x.kind, "gate and up")
    after = t.new((rows, experts.intermediate), x.kind, "act * up")
    each = t.new((rows, hidden), x.kind, "output of each chosen expert")
    out = t.new(x.shape, x.kind, "experts' output")
    inputs = (x, gate_up, down, weights)
    if not t.needs_grad(*inputs):
        return out
    saved = t.save((x, gate_up, down, before, weights, *routing))
    wanted = [one.node is not None for one in inputs]
    del after, each, chosen, counts

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        made = _gradients(t, experts, grad, *saved[:5])
        return [gradient if want else None for gradient, want in zip(made, wanted, strict=True)]

    return t.record(out, inputs, saved, backward)


def _gradients(
    t: Tape, experts: Experts, grad: Tensor, x: Tensor, gate_up: Tensor, down: Tensor, before: Tensor, weights: Tensor
) -> list[Tensor]:
    """Of the tokens, of all experts' weights and of the router's, wanted or not."""
    rows, hidden = before.shape[0], x.shape[1]
    to_before = t.new(before.shape, grad.kind, "gate and up gradient")
    weighted = t.new((rows, experts.intermediate), grad.kind, "act * up, weighted")
    to_weights = t.new((rows,), grad.kind, "router weights gradient")
    to_down = t.new(down.shape, down.kind, "gradient of every expert's down_proj")
    each = t.new((rows, hidden), grad.kind, "input gradient of each chosen expert")
    to_x = t.new(x.shape, grad.kind, "experts' input gradient")
    to_gate_up = t.new(gate_up.shape, gate_up.kind, "gradient of every expert's gate_up_proj")
    del to_before, weighted, each
    return [to_x, to_gate_up, to_down, t.view(to_weights, weights.shape)]


def _routing(t: Tape, experts: Experts, tokens: int, rows: int) -> tuple[Tensor, list[Tensor]]:
    """`compute_routing_metadata`: rows per expert, and where the experts' rows begin and lie.

    How many tiles of rows there are depends on how tokens fall: as if every expert's last one were begun.
    """
    count = experts.count
    per_block = max(1, _COUNTED // (1 << (experts.per_token - 1).bit_length()))
    tiles = rows // _TILE + count
    by_block = t.new((count, -(-tokens // per_block)), INT32, "choices per expert and block")
    counts = t.new((count,), INT32, "choices per expert")
    starts, offsets = (t.new((count + 1,), INT32, what) for what in ("expert starts", "tile offsets"))
    tile_rows, tile_experts = (t.new((tiles,), INT32, what) for what in ("tile rows", "tile experts"))
    places = [t.new((rows,), INT32, what) for what in ("scattered places", "places in reverse", "gathered tokens")]
    del by_block, offsets
    return counts, [starts, *places, tile_rows, tile_experts]
