"""The output head and the loss: transformers' ForCausalLMLoss (loss/loss_utils.py, 5.17), chunked and Liger's."""

from collections.abc import Callable
from functools import partial

from vramplan.predict.checkpoints import run_checkpointed
from vramplan.predict.operations import add, cast, pointwise, reshape, scale, split_rows
from vramplan.predict.projections import linear
from vramplan.predict.tape import FLOAT32, INT64, Gradients, Tape, Tensor
from vramplan.predict.template import Padded
from vramplan.scenario import Checkpointing

Head = Callable[[Tensor], Tensor]


def head_logits(t: Tape, hidden: Tensor, weight: Tensor, bias: Tensor | None, facts: dict[str, object]) -> Tensor:
    """Logits as the model returns them, after what the family does to them."""
    logits = linear(t, hidden, weight, bias, "logits")
    if facts.get("logit_scale"):
        logits = scale(t, logits, "scaled logits")  # Granite: logits / logits_scaling
    if facts.get("logit_softcap"):
        logits = scale(t, logits, "capped logits")
        logits = pointwise(t, logits, "tanh of logits", saves="result")
        logits = scale(t, logits, "soft-capped logits")
    return logits


#: Tokens whose logits exist at once in the chunked loss (vramplan/training/loss.py).
CHUNK_TOKENS = 1024


def chunked_loss(t: Tape, hidden: Tensor, head: Head) -> Tensor:
    """Cross entropy over chunks of tokens, each a checkpoint of its own: backward makes a chunk's logits again."""
    batch, seq, size = hidden.shape
    padded = t.new((batch, seq + 1), INT64, "labels padded")
    targets = t.new((batch * seq,), INT64, "labels shifted")
    flat = reshape(t, hidden, (batch * seq, size))
    total = t.new((), FLOAT32, "loss of all chunks")
    for piece in split_rows(t, flat, CHUNK_TOKENS):
        total = add(t, total, run_checkpointed(t, partial(_chunk_loss, t, head), piece, Checkpointing.NON_REENTRANT))
    del padded, targets
    return scale(t, total, "loss")


def _chunk_loss(t: Tape, head: Head, tokens: Tensor) -> Tensor:
    labels = t.new((tokens.shape[0],), INT64, "labels of the chunk")
    logits = head(tokens)
    return cross_entropy(t, cast(t, logits, FLOAT32, "logits fp32"), labels)


def liger_loss(t: Tape, hidden: Tensor, weight: Tensor) -> Tensor:
    """Liger's fused linear cross entropy: forward makes the gradients, chunk by chunk; backward hands them out.

    liger_kernel/ops/fused_linear_cross_entropy.py: chunks so small that their logits take about as much as the hidden
    states.
    """
    batch, seq, size = hidden.shape
    tokens, vocab = batch * seq, weight.shape[0]
    ratio = -(-vocab // size)
    rows = 1 << (-(-tokens // ratio) - 1).bit_length()
    gradient = t.new(hidden.shape, hidden.kind, "gradient of the hidden states")
    to_weight = t.new(weight.shape, weight.kind, "gradient of the head") if weight.node is not None else None
    losses = t.new((tokens,), FLOAT32, "loss of each token")
    _liger_chunk(t, hidden, weight, min(rows, tokens))
    out = t.new((), FLOAT32, "loss")
    del losses
    if not t.needs_grad(hidden, weight):
        return out
    saved = t.save([gradient, *([to_weight] if to_weight is not None else [])])
    needs = hidden.node is not None

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.detach(saved[0]) if needs else None, t.detach(saved[1]) if len(saved) > 1 else None)

    return t.record(out, (hidden, weight), saved, backward)


def _liger_chunk(t: Tape, hidden: Tensor, weight: Tensor, rows: int) -> None:
    kind = t.autocast or hidden.kind
    lowered = None if weight.kind is kind else t.new(weight.shape, kind, "head cast")
    logits = t.new((rows, weight.shape[0]), kind, "logits of a chunk")
    product = t.new((rows, hidden.shape[-1]), kind, "gradient of a chunk")
    del lowered, logits, product


def causal_loss(t: Tape, logits: Tensor) -> Tensor:
    """`ForCausalLMLoss`: logits to fp32, labels shifted, cross entropy over all tokens."""
    batch, seq, vocab = logits.shape
    wide = cast(t, logits, FLOAT32, "logits fp32")
    padded = t.new((batch, Padded.of(seq, extra=1)), INT64, "labels padded")
    shifted = t.new((batch, seq), INT64, "labels shifted")
    loss = cross_entropy(t, reshape(t, wide, (batch * seq, vocab)), shifted)
    del padded
    return loss


def cross_entropy(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """`F.cross_entropy`: keeps the log-probabilities; backward makes two gradients of their size."""
    return _nll(t, _log_softmax(t, logits), labels)


def _log_softmax(t: Tape, logits: Tensor) -> Tensor:
    out = t.new(logits.shape, logits.kind, "log-probabilities")
    if not t.needs_grad(logits):
        return out
    saved = t.save((out,))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.new(grad.shape, grad.kind, "log-softmax gradient"),)

    return t.record(out, (logits,), saved, backward)


def _nll(t: Tape, logs: Tensor, labels: Tensor) -> Tensor:
    grad_needed = t.needs_grad(logs)
    saved = t.save((logs, labels)) if grad_needed else []
    out = t.new((), logs.kind, "loss")
    total = t.new((), logs.kind, "total weight")
    if not grad_needed:
        return out
    saved += t.save((total,))
    shape = logs.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (t.new(shape, FLOAT32, "negative log-likelihood gradient"),)

    return t.record(out, (logs,), saved, backward)
