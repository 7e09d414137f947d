"""What is computed in place, and what else it changes: a tensor of which only a view was written to."""

from collections.abc import Sequence

from vramplan.predict.operations import add_in_place
from vramplan.predict.operations.gradients import new_gradients, summed, wanted
from vramplan.predict.tape import FLOATS, Gradients, Tape, Tensor


def computed(t: Tape, x: Tensor, other: Tensor | None, word: str) -> Tensor:
    """`x += other`: x's storage; a product or quotient saves the other, and a copy of x before it for the other."""
    if other is not None and word == "add":
        return add_in_place(t, x, other)
    nx, no, shapes = t.needs_grad(x), t.needs_grad(other), wanted(other)
    additive = word in ("add", "sub")
    before = t.new(x.shape, x.kind, "copy before it changes") if no and not additive else None
    out = t.view(x, x.shape)
    if not (nx or no):
        return out
    saved = [] if additive else t.save((other, before))

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        to_other = new_gradients(t, shapes, grad.kind, "gradient of the other")
        to_x = (grad if additive else t.new(grad.shape, grad.kind, "gradient in place")) if nx else None
        return to_x, *to_other

    return t.record(out, (x, other), saved, backward)


def overwritten(t: Tape, x: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Some of `x` set in place: its gradient is a copy with that part cleared, theirs are gathered."""
    out = t.view(x, x.shape)
    out.node = x.node
    if not t.needs_grad(x, *others):
        return out
    saved = t.save([other for other in others if other.kind.name not in FLOATS])
    needs, shapes = x.node is not None, wanted(*others)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        own = t.new(grad.shape, grad.kind, "gradient, partly cleared") if needs else None
        return own, *new_gradients(t, shapes, grad.kind, "gradient of what was set")

    return t.record(out, (x, *others), saved, backward)


def added_at(t: Tape, x: Tensor, index: Tensor, source: Tensor, keeps_source: bool) -> Tensor:
    """`index_add_`, `scatter_add_`: x's gradient passes, the source's is gathered; the first saves its source too."""
    out = t.view(x, x.shape)
    out.node = x.node
    ns, shape = t.needs_grad(source), source.shape
    if not t.needs_grad(x, source):
        return out
    saved = t.save((index, source) if keeps_source else (index,)) if ns else []

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return grad, t.new(shape, grad.kind, "gradient of what was added") if ns else None

    return t.record(out, (x, source), saved, backward)


def replaced(t: Tape, x: Tensor, source: Tensor | None) -> Tensor:
    """`x.copy_(source)`, None for a number: zeros for x, and the source gets the gradient itself (copy_slices.cpp
    `CopyBackwards`)."""
    out = t.view(x, x.shape)
    out.node = x.node
    nx, ns = t.needs_grad(x), t.needs_grad(source)
    if not (nx or ns):
        return out
    shape = source.shape if source is not None and ns else None

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        zeros = t.new(grad.shape, grad.kind, "gradient of what was replaced") if nx else None
        return zeros, summed(t, grad, shape) if ns else None

    return t.record(out, (x, source), [], backward)


def changed_within(t: Tape, whole: Tensor, changed: Tensor) -> Tensor:
    """`whole` after `changed`, a view of it, was changed in place: its gradient is copied, and the view's part of that
    once more for the operation's own derivative (copy_slices.cpp `CopySlices`)."""
    node, part, needs = changed.node, changed.shape, t.needs_grad(whole)
    assert node is not None
    own = node.backward

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        result = t.new(grad.shape, grad.kind, "gradient of the whole")
        _, *others = own(saved, t.new(part, grad.kind, "gradient of the changed part"))
        return result if needs else None, *others

    out = t.record(t.view(whole, whole.shape), (whole,), node.saved, backward)
    assert out.node is not None
    out.node.edges = (whole.node, *node.edges[1:])
    return out
