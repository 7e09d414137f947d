"""What a tape writes, as words; every float32 tensor of four elements is 16 bytes."""

from vramplan.predict.tape import FLOAT32, Tape, Tensor
from vramplan.timeline import Alloc, Free, Timeline


def events(t: Tape) -> list[str]:
    """`+label` for an allocation, `-label` for its free, in order."""
    labels: dict[int, str] = {}
    seen = []
    for event in Timeline(t.script.template(1, 1).parts(1, 1)).events():
        if isinstance(event, Alloc):
            labels[event.block] = event.label.partition(" float32")[0]
            seen.append("+" + labels[event.block])
        elif isinstance(event, Free):
            seen.append("-" + labels[event.block])
    return seen


def leaf(t: Tape, label: str = "x") -> Tensor:
    x = t.new((4,), FLOAT32, label)
    t.require_grad(x)
    return x
