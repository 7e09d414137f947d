"""Liger's fused linear cross entropy: forward makes the gradients, chunk by chunk; backward hands them out.

liger-kernel 0.8.5 ops/fused_linear_cross_entropy.py and transformers/model/loss_utils.py. `stack.loss: liger` means
this loss alone: what `use_liger_kernel` of transformers' Trainer patches besides (norms, rotary positions, gated MLPs)
is `stack.kernels`. The package's own Python, run with kernels that do nothing, allocates what this says to the byte:
16- and 32-bit hidden states and heads, with and without autocast, frozen and trained, compute capability 7 and 8.
"""

from vramplan.predict.linear import lowered
from vramplan.predict.loss import shifted_labels
from vramplan.predict.operations import cast, reshape
from vramplan.predict.tape import BOOL, FLOAT32, INT64, Gradients, Kind, Tape, Tensor

#: `chunk_mem_const`, by family: how many times as much as all hidden states a chunk's logits may take
#: (transformers/model/gpt_oss.py); once for others.
_BUDGETS = {"gpt_oss": 8}


def chunk_rows(tokens: int, hidden: int, vocab: int, family: str) -> int:
    """Tokens per chunk: so few that a chunk's logits take about as much as all hidden states; a power of two."""
    wider = -(-vocab // (hidden * _BUDGETS.get(family, 1)))
    rows = 1 << (-(-tokens // wider) - 1).bit_length()
    return min(rows, tokens)


def liger_loss(t: Tape, hidden: Tensor, weight: Tensor, family: str) -> Tensor:
    """`LigerForCausalLMLoss` of hidden states [batch, seq, size] and the head's weight [vocab, size]."""
    batch, seq, size = hidden.shape
    padded, shifted = shifted_labels(t, batch, seq)
    flat = reshape(t, hidden, (batch * seq, size))
    loss = _fused(t, flat, weight, chunk_rows(batch * seq, size, weight.shape[0], family))
    del padded, shifted
    return loss


def _fused(t: Tape, x: Tensor, weight: Tensor, rows: int) -> Tensor:
    """`LigerFusedLinearCrossEntropyFunction` in chunks of so many rows; a frozen head gets no gradient."""
    tokens = x.shape[0]
    grad_needed = t.needs_grad(x, weight)
    to_x = t.new(x.shape, x.kind, "gradient of the hidden states")
    trained = weight.node is not None and x.node is not None
    to_weight = t.new(weight.shape, weight.kind, "gradient of the head") if trained else None
    losses = t.new((tokens,), FLOAT32, "loss of each token")
    counted = t.new((tokens,), BOOL, "tokens that count")
    _count(t, tokens)
    direct = t.cuda and x.kind is weight.kind and t.autocast in (None, x.kind)
    buffer = t.new((rows, weight.shape[0]), x.kind, "logits of a chunk") if direct else None
    with t.no_grad():
        for start in range(0, tokens, rows):
            _chunk(t, x, weight, min(rows, tokens - start), buffer, to_weight)
    del buffer
    out = t.new((), FLOAT32, "loss")
    del losses, counted
    if not grad_needed:
        return out
    needs = x.node is not None
    saved = t.save((to_x, to_weight))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.detach(saved[0]) if needs else None, t.detach(saved[1]) if len(saved) > 1 else None)

    return t.record(out, (x, weight), saved, backward)


def _count(t: Tape, tokens: int) -> None:
    """`target_mask.sum().item()`: truths are summed as whole numbers."""
    count = t.new((), INT64, "number of tokens that count")
    numbers = t.new((tokens,), INT64, "tokens that count, as numbers")
    del numbers, count


def _chunk(t: Tape, x: Tensor, weight: Tensor, rows: int, buffer: Tensor | None, to_weight: Tensor | None) -> None:
    """One chunk: logits (their gradient takes their place), the hidden states' gradient, the head's."""
    kind = t.autocast or x.kind
    logits = buffer
    if logits is None:
        turned = cast(t, t.detach(weight), kind, "head cast")  # `weight.t()` is a view, which autocast does not cache
        piece = _piece(t, x, rows, kind)
        logits = t.new((rows, weight.shape[0]), kind, "logits of a chunk")
        del turned, piece
        low = lowered(t, weight, "head cast")
        product = t.new((rows, x.shape[1]), kind, "gradient of a chunk")
        del low, product
    if to_weight is not None:
        _add_to_weight(t, x, rows, kind, to_weight)


def _piece(t: Tape, x: Tensor, rows: int, kind: Kind) -> Tensor | None:
    return None if x.kind is kind else t.new((rows, x.shape[1]), kind, "hidden states of a chunk, cast")


def _add_to_weight(t: Tape, x: Tensor, rows: int, kind: Kind, to_weight: Tensor) -> None:
    """`addmm` into the head's gradient for 16-bit logits from compute capability 8 on; else a product first."""
    piece = _piece(t, x, rows, kind)
    if t.capability[0] >= 8 and kind is not FLOAT32 and to_weight.kind in (FLOAT32, kind):
        return
    product = t.new(to_weight.shape, kind, "product for the head's gradient")
    del piece
    wide = cast(t, product, FLOAT32, "product for the head's gradient, fp32")
    del product, wide
