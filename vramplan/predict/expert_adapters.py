"""Adapters of bare parameters: peft 0.21.2 tuners/lora/layer.py ParamWrapper, which multiplies by adapted copies.

While the wrapped module runs, its parameter is parametrised: torch computes the adapted weight once to check its shape
and type, and once more when the module asks for it; the second is kept until the outermost wrapper ends.
"""

from math import prod

from vramplan.predict.linear import Adapter, lowered
from vramplan.predict.modules import Modules
from vramplan.predict.operations import add, cast, clone, reshape, scale
from vramplan.predict.operations.products import product
from vramplan.predict.tape import Gradients, Shape, Tape, Tensor


class Parameter:
    """A parameter of a module that is about to run, with its adapter's factors where it has one."""

    def __init__(self, t: Tape, m: Modules, path: str) -> None:
        self._weight = m.tensors[path]
        self._delta: Tensor | None = None
        self._factors: tuple[Tensor, Tensor] | None = None
        adapter = m.adapters.get(path)
        if adapter is None:
            return
        if len(self._weight.shape) == 2:
            self._delta = _delta(t, self._weight, adapter)
        else:
            self._factors = _factors(t, self._weight, adapter)
        check = t.new(self._weight.shape, self._weight.kind, "adapted weight, checked")
        del check

    def __call__(self, t: Tape) -> Tensor:
        """The weight that the module multiplies by."""
        if self._delta is not None:
            return add(t, self._weight, self._delta, "adapted weight")
        if self._factors is not None:
            return _folded(t, self._weight, *self._factors)
        return self._weight


def _delta(t: Tape, weight: Tensor, adapter: Adapter) -> Tensor:
    """`get_delta_weight` of a matrix: B @ A, which autocast sees, scaled, in the weight's type."""
    b, a = lowered(t, adapter.b, "lora_B cast"), lowered(t, adapter.a, "lora_A cast")
    label = "lora_B @ lora_A"
    labels = f"{label} gradient (left)", f"{label} gradient (right)"
    whole = product(t, b, a, (b.shape[0], a.shape[1]), label, gradients=labels)
    del b, a
    return cast(t, scale(t, whole, "adapter's difference"), weight.kind, "adapter's difference, cast")


def _factors(t: Tape, weight: Tensor, adapter: Adapter) -> tuple[Tensor, Tensor]:
    """`get_delta_factors`: B and A by expert, in the weight's type."""
    experts, outputs, inputs = weight.shape
    rank = prod(adapter.b.shape) // (experts * outputs)
    left = cast(t, _by_expert(t, adapter.b, (experts, outputs, rank)), weight.kind, "lora_B by expert")
    right = cast(t, reshape(t, adapter.a, (experts, rank, inputs)), weight.kind, "lora_A by expert")
    return left, right


def _by_expert(t: Tape, b: Tensor, shape: Shape) -> Tensor:
    """A permuted view of lora_B; its gradient is laid out anew."""
    return reshape(t, _copied_in_backward(t, b), shape)


def _copied_in_backward(t: Tape, x: Tensor) -> Tensor:
    out = t.view(x, x.shape)
    if not t.needs_grad(x):
        return out

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (clone(t, grad, "gradient laid out anew"),)

    return t.record(out, (x,), [], backward)


def _folded(t: Tape, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`baddbmm(weight, left, right, alpha=scaling)`: saves the factors; each gradient is a product, then scaled."""
    grad_needed = t.needs_grad(left, right)
    saved = t.save((left, right)) if grad_needed else []
    out = t.new(weight.shape, weight.kind, "adapted weight")
    if not grad_needed:
        return out
    shapes = (left.shape, right.shape)

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        made: list[Tensor | None] = []
        for shape in shapes:
            product = t.new(shape, grad.kind, "factor gradient, unscaled")
            made.append(t.new(shape, grad.kind, "factor gradient"))
            del product
        return made

    return t.record(out, (left, right), saved, backward)
