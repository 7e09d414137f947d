"""Gradient checkpointing as torch.utils.checkpoint does it: what a layer forgets, and when it runs again."""

from collections.abc import Callable

from vramplan.predict.tape import UINT8, Frame, Gradients, Tape, Tensor
from vramplan.scenario import Checkpointing

Layer = Callable[[Tensor], Tensor]


def run_checkpointed(t: Tape, layer: Layer, hidden: Tensor, kind: Checkpointing) -> Tensor:
    """The layer's output; what backward will need is kept, or made again from `hidden`."""
    if kind is Checkpointing.OFF:
        return layer(hidden)
    if kind is Checkpointing.REENTRANT:
        return _reentrant(t, layer, hidden)
    return _non_reentrant(t, layer, hidden)


def _random_state(t: Tape) -> Tensor | None:
    """The CPU generator's state (5,056 bytes), kept so that dropout repeats itself (`preserve_rng_state`)."""
    return None if t.cuda else t.new((5056,), UINT8, "random generator's state")


def _non_reentrant(t: Tape, layer: Layer, hidden: Tensor) -> Tensor:
    """Saved tensors become holders; the frame keeps the layer's input until the last holder goes."""
    if not t.recording:
        return layer(hidden)

    def run() -> None:
        layer(hidden)

    before, t.frame = t.frame, Frame(run, t.autocast, _random_state(t))
    out = layer(hidden)
    t.frame = before
    return out


def _reentrant(t: Tape, layer: Layer, hidden: Tensor) -> Tensor:
    """`CheckpointFunction`: forward without graph; backward runs the whole layer again and backs through it at once."""
    grad_needed = t.needs_grad(hidden)
    random = _random_state(t)
    saved = t.save((hidden,)) if grad_needed else []
    with t.no_grad():
        out = layer(hidden)
    if not grad_needed:
        return out
    autocast = t.autocast

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        detached = t.detach(saved[0])
        leaf = t.require_grad(detached)
        recording, t.recording = t.recording, True
        casts, t.casts = t.casts, {}
        with t.casting(autocast):
            output = layer(detached)
        t.recording, t.casts = recording, casts
        t.backward(output, grad)
        return (leaf.grad,)

    t.record(out, (hidden,), saved, backward)
    assert out.node is not None
    out.node.kept = random
    return out
