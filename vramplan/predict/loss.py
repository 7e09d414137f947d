"""The output head and the loss: transformers' ForCausalLMLoss (loss/loss_utils.py, 5.17), and the kernels that avoid the logits."""

from vramplan.predict.operations import cast, pointwise, reshape, scale
from vramplan.predict.projections import linear
from vramplan.predict.tape import FLOAT32, INT64, Gradients, Tape, Tensor
from vramplan.predict.template import Padded


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
