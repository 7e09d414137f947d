"""What one operation holds on the tape."""

from collections.abc import Callable

from vramplan.ledger import Phase
from vramplan.predict.backward import run_backward
from vramplan.predict.tape import Kind, Tape, Tensor
from vramplan.timeline import Timeline

Run = Callable[[Tape, Tensor], Tensor]


def marks(run: Run, kind: Kind, device: str, shape: tuple[int, ...] = (2, 3, 8)) -> tuple[int, int, int]:
    """Bytes held at the highest moment of forward, kept when it is over, and at the highest moment of backward.

    The input itself, which someone else holds, and the incoming gradient are not counted.
    """
    t = Tape(device)
    t.enter(Phase.FORWARD)
    x = t.new(shape, kind, "x")
    t.require_grad(x)
    y = run(t, x)
    t.enter(Phase.LOSS)
    grad = t.new(y.shape, y.kind, "incoming")
    out = y.numel * y.kind.bytes
    t.enter(Phase.BACKWARD)
    run_backward(t, y, grad)
    ledger = Timeline(t.script.template(2, 3).parts(2, 3)).ledger({})
    given, incoming = x.numel * kind.bytes, out
    return (
        ledger.allocated(Phase.FORWARD) - given,
        ledger.allocated(Phase.LOSS) - given - incoming - out,
        ledger.allocated(Phase.BACKWARD) - given - incoming - out,
    )
