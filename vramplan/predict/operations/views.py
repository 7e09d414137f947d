"""Other dimensions, slices and pieces of a tensor, and pieces joined to one."""

from collections.abc import Mapping

from vramplan.predict.operations.gradients import record_results
from vramplan.predict.tape import Gradients, Shape, Tape, Tensor


def reshape(t: Tape, x: Tensor, shape: Shape) -> Tensor:
    """A view with other dimensions (also transposes): shares the storage, saves nothing; so does its gradient.

    Unless heads that lie apart in memory become one dimension: `view`'s backward is `grad.reshape`, which then copies.
    """
    out = t.view(x, shape)
    if not t.needs_grad(x):
        return out
    before = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        if (grad.heads_first or grad.sliced) and len(before) < len(shape) and shape[-2] > 1:
            return (t.new(before, grad.kind, "gradient laid out anew"),)
        return (reshaped(t, grad, before),)

    return t.record(out, (x,), [], backward)


def reshaped(t: Tape, grad: Tensor, shape: Shape) -> Tensor:
    """`grad.reshape(shape)`: a view, unless a dimension whose memory repeats becomes one with another."""
    if grad.repeats and _merges(grad.shape, shape, grad.repeats):
        return t.new(shape, grad.kind, "expanded gradient written out")
    return t.view(grad, shape)


def _merges(before: Shape, after: Shape, repeats: frozenset[int]) -> bool:
    """Whether some of `repeats` become one dimension with others that are not; dimensions that change places do not."""
    old = [(size, i in repeats) for i, size in enumerate(before) if size != 1]
    new = [size for size in after if size != 1]
    if sorted(size for size, _ in old) == sorted(new):
        return False
    while old:
        (size, repeated), length = old.pop(0), new.pop(0)
        while size != length:
            if size > length:
                length *= new.pop(0)
                continue
            more, also = old.pop(0)
            if also is not repeated:
                return True
            size *= more
    return False


def narrow(t: Tape, x: Tensor, size: int) -> Tensor:
    """A slice of the last dimension: a view; its gradient is a full tensor of zeros with the slice filled in."""
    out = t.view(x, (*x.shape[:-1], size))
    if not t.needs_grad(x):
        return out
    shape = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        zeros = t.new(shape, grad.kind, "slice gradient")
        zeros.heads_first = len(shape) == 4
        return (zeros,)

    return t.record(out, (x,), [], backward)


def padded(t: Tape, x: Tensor, multiple: int, *, outside_autograd: bool = False) -> Tensor:
    """`pad` of the last dimension to a multiple: a copy; its gradient is cut by another one, laid out alike.

    `outside_autograd` a Python function pads inside its forward, and its backward slices the gradient: a view.
    """
    shape = x.shape
    out = t.new((*shape[:-1], -(-shape[-1] // multiple) * multiple), x.kind, "padded")
    if not t.needs_grad(x):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        if outside_autograd:
            cut = t.view(grad, shape)
            cut.sliced = True
        else:
            cut = t.new(shape, grad.kind, "padding cut off the gradient")
            cut.heads_first = len(shape) == 4
        return (cut,)

    return t.record(out, (x,), [], backward)


def cat(t: Tape, pieces: list[Tensor], label: str = "concatenation") -> Tensor:
    """Concatenation along the last dimension: a copy; the gradients are views of the incoming one."""
    out = t.new((*pieces[0].shape[:-1], sum(piece.shape[-1] for piece in pieces)), pieces[0].kind, label)
    if not t.needs_grad(*pieces):
        return out
    shapes = [piece.shape for piece in pieces]

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return [t.view(grad, shape) for shape in shapes]

    return t.record(out, pieces, [], backward)


def split(t: Tape, x: Tensor, sizes: list[int]) -> list[Tensor]:
    """`x.split(sizes, -1)`: views; backward concatenates the gradients once all of them are there."""
    return split_into(t, x, [(*x.shape[:-1], size) for size in sizes])


def split_rows(t: Tape, x: Tensor, rows: int) -> list[Tensor]:
    """`x.split(rows)`: the same along the first dimension."""
    counts = [min(rows, x.shape[0] - start) for start in range(0, x.shape[0], rows)]
    return split_into(t, x, [(count, *x.shape[1:]) for count in counts])


def split_into(t: Tape, x: Tensor, shapes: list[Shape]) -> list[Tensor]:
    """Views that add up to the whole; backward concatenates their gradients once all of them are there."""
    pieces = [t.view(x, piece) for piece in shapes]
    if not t.needs_grad(x):
        return pieces
    shape = x.shape

    def backward(came: Mapping[int, Tensor]) -> Gradients:
        kind = next(iter(came.values())).kind
        zeros = [t.new(piece, kind, "zeros of an unused piece") for i, piece in enumerate(shapes) if i not in came]
        whole = t.new(shape, kind, "split gradient")
        del zeros
        whole.heads_first = len(shape) == 4
        return (whole,)

    record_results(t, pieces, (x,), [], backward)
    return pieces
