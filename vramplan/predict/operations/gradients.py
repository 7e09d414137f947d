"""Gradients that are tensors of their own, and what a node keeps for them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from vramplan.predict.graph import Saved
from vramplan.predict.tape import UINT8, Gradients, Kind, Shape, Tape, Tensor
from vramplan.predict.template import Derived, PartialSums


def wanted(*xs: Tensor | None) -> list[Shape | None]:
    """The shapes of those that need a gradient; None for the others."""
    return [None if x is None or x.node is None else x.shape for x in xs]


def new_gradients(t: Tape, shapes: Sequence[Shape | None], kind: Kind, label: str) -> list[Tensor | None]:
    """A new tensor for each that is wanted."""
    return [None if shape is None else t.new(shape, kind, label) for shape in shapes]


def summed(t: Tape, grad: Tensor | None, shape: Shape | None) -> Tensor | None:
    """A gradient summed over what was broadcast, as the engine does with what a node returns."""
    if grad is None or shape is None or grad.shape == shape:
        return grad
    out = t.new(shape, grad.kind, "gradient summed over broadcast dimensions")
    if shape and grad.shape[-1] == shape[-1] == out.numel:
        while_summed(t, grad)
    return out


def while_summed(t: Tape, x: Tensor) -> None:
    """What a sum over all but the last dimension takes on a card until it is done."""
    columns = x.shape[-1]
    rows, rest = divmod(x.numel // columns, t.batch * t.seq)
    if t.cuda and not rest:
        rule = PartialSums(rows, columns, t.capability, t.processors)
        t.new((Derived.by(rule, t.batch, t.seq),), UINT8, "partial sums")


def saved_for(t: Tape, x: Tensor, *saves: Tensor) -> list[Saved]:
    """What the node of an operation on `x` keeps, if there is one.

    Inputs are saved before the result is made, results after it (torch/csrc/autograd/generated/VariableType): where a
    checkpoint's recomputation ends with an input that is saved, the result is never made.
    """
    return t.save(saves) if t.needs_grad(x) else []


def record_results(
    t: Tape,
    results: Sequence[Tensor],
    inputs: Sequence[Tensor],
    saved: list[Saved],
    backward: Callable[[Mapping[int, Tensor]], Gradients],
) -> None:
    """`results` as those of one operation: its `backward` gets the gradients that came, by the result's index."""
    came: dict[int, Tensor] = {}

    def gather(saved: list[Tensor], grad: Tensor) -> Gradients:
        gradients = backward(came)
        came.clear()
        return gradients

    def arrive(i: int, saved: list[Tensor], grad: Tensor) -> Gradients:
        came[i] = grad
        return (None,)

    operation = t.record(t.view(inputs[0], inputs[0].shape), inputs, saved, gather)
    assert operation.node is not None
    operation.node.parts = came
    for i, result in enumerate(results):
        t.record(result, (operation,), [], partial(arrive, i))


def own_gradient(t: Tape, x: Tensor, out: Tensor, label: str, saved: list[Saved] | None = None) -> Tensor:
    """`out`, made of `x`, whose gradient becomes a tensor of x's shape."""
    if not t.needs_grad(x):
        return out
    shape = x.shape
    return t.record(out, (x,), saved or [], lambda saved, grad: (t.new(shape, grad.kind, label),))
