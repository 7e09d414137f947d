"""The output head and the loss: transformers' ForCausalLMLoss (loss/loss_utils.py, 5.17), and the one in chunks."""

from collections.abc import Callable
from functools import partial

from vramplan.architecture import Facts
from vramplan.predict.checkpoints import run_checkpointed
from vramplan.predict.operations import add, cast, pointwise, reshape, scale, split_rows
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import FLOAT32, INT64, Gradients, Tape, Tensor
from vramplan.predict.template import stretched
from vramplan.scenario import Checkpointing
from vramplan.stacks import CHUNK_TOKENS

Head = Callable[[Tensor], Tensor]


def finished_logits(t: Tape, logits: Tensor, facts: Facts) -> Tensor:
    """Logits as the model returns them, after what the family does to the head's."""
    if facts.scaled_logits:
        logits = scale(t, logits, "scaled logits")  # Granite: logits / logits_scaling
    if facts.capped_logits:
        logits = scale(t, logits, "capped logits")
        logits = pointwise(t, logits, "tanh of logits", saves="result")
        logits = scale(t, logits, "soft-capped logits")
    return logits


def chunked_loss(t: Tape, hidden: Tensor, head: Head) -> Tensor:
    """Cross entropy over chunks of tokens, each a checkpoint of its own: backward makes a chunk's logits again."""
    batch, seq, size = hidden.shape
    targets = _flat_targets(t, batch, seq)
    flat = reshape(t, hidden, (batch * seq, size))
    total = t.new((), FLOAT32, "loss of all chunks")
    for piece in split_rows(t, flat, CHUNK_TOKENS):
        chunk = partial(_chunk_loss, t, head, t.view(targets, piece.shape[:1]))
        total = add(t, total, run_checkpointed(t, chunk, piece, Checkpointing.NON_REENTRANT))
    return scale(t, total, "loss")


def _flat_targets(t: Tape, batch: int, seq: int) -> Tensor:
    """`pad(labels)[..., 1:].reshape(-1)`: of one sample a view of the padded labels, of more a copy."""
    if batch == 1:
        return t.view(_padded_labels(t, batch, seq), (seq,))
    _, shifted = shifted_labels(t, batch, seq)
    return t.view(shifted, (batch * seq,))


def _chunk_loss(t: Tape, head: Head, labels: Tensor, tokens: Tensor) -> Tensor:
    logits = head(tokens)
    return cross_entropy(t, cast(t, logits, FLOAT32, "logits fp32"), labels)


def shifted_labels(t: Tape, batch: int, seq: int) -> tuple[Tensor, Tensor]:
    """Labels with a column more, and the copy of all but the first, so that each token is asked for the next."""
    return _padded_labels(t, batch, seq), t.new((batch, seq), INT64, "labels shifted")


def _padded_labels(t: Tape, batch: int, seq: int) -> Tensor:
    return t.new((batch, stretched(seq, extra=1)), INT64, "labels padded")


def causal_loss(t: Tape, logits: Tensor) -> Tensor:
    """`ForCausalLMLoss`: logits to fp32, labels shifted, cross entropy over all tokens."""
    batch, seq, vocab = logits.shape
    wide = cast(t, logits, FLOAT32, "logits fp32")
    padded, shifted = shifted_labels(t, batch, seq)
    loss = cross_entropy(t, reshape(t, wide, (batch * seq, vocab)), shifted)
    del padded
    return loss


def cross_entropy(t: Tape, logits: Tensor, labels: Tensor) -> Tensor:
    """`F.cross_entropy`: keeps the log-probabilities; backward makes two gradients of their size."""
    return _nll(t, _log_softmax(t, logits), labels)


def _log_softmax(t: Tape, logits: Tensor) -> Tensor:
    out = t.new(logits.shape, logits.kind, "log-probabilities")
    return own_gradient(t, logits, out, "log-softmax gradient", saved_for(t, logits, out))


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
