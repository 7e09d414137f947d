"""Gradient checkpointing as torch.utils.checkpoint does it: what a layer forgets, and when it runs again."""

from collections.abc import Callable

from vramplan.predict.backward import run_backward
from vramplan.predict.graph import Frame
from vramplan.predict.tape import UINT8, Gradients, Tape, Tensor
from vramplan.scenario import Checkpointing

#: A layer's output, and the attention weights where it returns them too.
Returned = tuple[Tensor, Tensor | None]
Layer = Callable[[Tensor], Returned]


def run_checkpointed(t: Tape, function: Callable[[Tensor], Tensor], x: Tensor, kind: Checkpointing) -> Tensor:
    """What a function of one tensor returns; what backward will need is kept, or made again from `x`."""
    return run_layer(t, lambda again: (function(again), None), x, kind)[0]


def run_layer(t: Tape, layer: Layer, hidden: Tensor, kind: Checkpointing) -> Returned:
    """The same for a layer."""
    if kind is Checkpointing.OFF:
        return layer(hidden)
    if kind is Checkpointing.REENTRANT:
        return _reentrant(t, layer, hidden)
    return _non_reentrant(t, layer, hidden)


def _random_state(t: Tape) -> Tensor | None:
    """The CPU generator's state (5,056 bytes), kept so that dropout repeats itself (`preserve_rng_state`)."""
    return None if t.cuda else t.new((5056,), UINT8, "random generator's state")


def _non_reentrant(t: Tape, layer: Layer, hidden: Tensor) -> Returned:
    """Saved tensors become holders; the frame keeps the layer's input until the last holder goes."""
    if not t.recording:
        return layer(hidden)

    def run() -> None:
        layer(hidden)

    before, t.frame = t.frame, Frame(run, t.autocast, _random_state(t))
    returned = layer(hidden)
    t.frame = before
    return returned


def _reentrant(t: Tape, layer: Layer, hidden: Tensor) -> Returned:
    """`CheckpointFunction`: forward without graph; backward runs the whole layer again and backs through it at once."""
    grad_needed = t.needs_grad(hidden)
    random = _random_state(t)
    saved = t.save((hidden,)) if grad_needed else []
    with t.no_grad():
        out, weights = layer(hidden)
    if not grad_needed:
        return out, weights
    autocast = t.autocast
    second = None if weights is None else (weights.shape, weights.kind)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # nobody used the second output: autograd makes zeros for its gradient
        zeros = None if second is None else t.new(*second, "gradient of attention weights")
        detached = t.detach(saved[0])
        leaf = t.require_grad(detached)
        recording, t.recording = t.recording, True
        casts, t.casts = t.casts, {}
        aside = _random_state(t)  # `fork_rng`: the generator's present state
        with t.casting(autocast):
            output, again = layer(detached)
        del aside
        t.recording, t.casts = recording, casts
        if again is not None and again.node is not None:
            again.node.gradient = zeros
        run_backward(t, output, grad)
        del again, zeros
        return (leaf.grad,)

    t.record(out, (hidden,), saved, backward)
    assert out.node is not None
    out.node.kept = random
    return out, weights
