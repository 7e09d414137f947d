"""What has no formula here."""

from collections.abc import Sequence

from vramplan.predict.operations.gradients import new_gradients, wanted
from vramplan.predict.tape import FLOATS, Gradients, Kind, Shape, Tape, Tensor


def opaque(t: Tape, xs: Sequence[Tensor], outs: Sequence[tuple[Shape, Kind]]) -> list[Tensor]:
    """An operation about which nothing is known: it saves its inputs, each gets a gradient of its own."""
    grad_needed = t.needs_grad(*xs)
    saved = t.save([x for x in xs if x.storage is not None]) if grad_needed else []
    made = [t.new(shape, kind, "result") for shape, kind in outs]
    if not grad_needed:
        return made
    shapes = wanted(*xs)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return new_gradients(t, shapes, grad.kind, "gradient")

    for out in made:
        if out.kind.name in FLOATS:
            t.record(out, xs, saved, backward)
    return made
