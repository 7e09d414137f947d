"""Queries, keys and values by heads: turned by their positions, repeated, multiplied, and laid out in memory.

transformers 5.17 modeling_llama.py `repeat_kv`, `apply_rotary_pos_emb`; ATen/native/LinearAlgebra.cpp `matmul`.
"""

from vramplan.predict.linear import lowered
from vramplan.predict.operations import add, cat, clone, mul, narrow, reshape, scale
from vramplan.predict.tape import Gradients, Tape, Tensor


def repeat_kv(t: Tape, x: Tensor, heads: int) -> Tensor:
    """transformers' `repeat_kv`, an expand and a reshape: a copy, unless a single head makes it a view."""
    if x.shape[1] == heads:
        return x
    return repeated(t, x, heads, copied=x.shape[1] > 1)


def repeat_interleave(t: Tape, x: Tensor, heads: int) -> Tensor:
    """The math kernel's repetition of grouped heads: always a copy."""
    return x if x.shape[1] == heads else repeated(t, x, heads, copied=True)


def broadcast_heads(t: Tape, x: Tensor, heads: int) -> Tensor:
    """What products of unlike numbers of heads make of the fewer: a copy, but for one head of one sample.

    ATen/native/LinearAlgebra.cpp `matmul` expands what it broadcasts and makes batch and heads one dimension.
    """
    return x if x.shape[1] == heads else repeated(t, x, heads, copied=x.shape[0] * x.shape[1] > 1)


def repeated(t: Tape, x: Tensor, heads: int, *, copied: bool) -> Tensor:
    """A key or value head per query head; the gradient is summed over them."""
    batch, _, seq, dim = x.shape
    shape = (batch, heads, seq, dim)
    out = t.new(shape, x.kind, "keys or values repeated") if copied else t.view(x, shape)
    if not t.needs_grad(x):
        return out
    before = x.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        return (_by_heads(t.new(before, grad.kind, "gradient summed over repeated heads")),)

    return t.record(out, (x,), [], backward)


def _by_heads(grad: Tensor) -> Tensor:
    grad.heads_first = True
    return grad


def dense(t: Tape, x: Tensor, *, permuted: bool) -> Tensor:
    """What a batched product makes of heads that lie in memory behind the sequence: a copy, unless batch is 1."""
    return clone(t, x, "operand of a batched product") if permuted and x.shape[0] > 1 else x


def batched(t: Tape, a: Tensor, b: Tensor, label: str, *, a_permuted: bool = False, b_permuted: bool = False) -> Tensor:
    """`torch.matmul` of 4-dimensional tensors: one product per batch entry and head.

    Permuted operands lie in memory behind the sequence: copied, unless batch is 1, once they have their type.
    """
    b, a = lowered(t, b, "operand cast"), lowered(t, a, "operand cast")
    left, right = dense(t, a, permuted=a_permuted), dense(t, b, permuted=b_permuted)
    na, nb = t.needs_grad(a), t.needs_grad(b)
    saved = t.save((left if nb else None, right if na else None)) if na or nb else []
    out = t.new((*a.shape[:-1], b.shape[-1]), a.kind, label)
    t.product()
    if not (na or nb):
        return out
    sa, sb = a.shape, b.shape

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        # derivatives are computed in the order of their names, `mat2` before `self`
        to_b = t.view(_by_heads(t.new(sb, grad.kind, label + ": right gradient")), sb) if nb else None
        return t.view(_by_heads(t.new(sa, grad.kind, label + ": left gradient")), sa) if na else None, to_b

    return _apart(t, t.record(out, (left, right), saved, backward))


def _apart(t: Tape, product: Tensor) -> Tensor:
    """Batch and heads as dimensions of their own again; where the gradient does not lie so, it is copied first."""
    batch, heads = product.shape[:2]

    def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
        if grad.heads_first or batch == 1 or heads == 1:
            return (t.view(grad, grad.shape),)
        return (_by_heads(t.new(grad.shape, grad.kind, "gradient of a batched product laid out")),)

    return t.record(t.view(product, product.shape), (product,), [], backward)


def transposed(t: Tape, x: Tensor) -> Tensor:
    """`x.transpose(-1, -2)`: a view."""
    return reshape(t, x, (*x.shape[:-2], x.shape[-1], x.shape[-2]))


def heads_last(t: Tape, out: Tensor, *, copy: bool) -> Tensor:
    """`transpose(1, 2).contiguous()`: a copy unless the kernel laid its output out that way."""
    batch, heads, seq, dim = out.shape
    swapped = reshape(t, out, (batch, seq, heads, dim))
    return clone(t, swapped, "attention output, heads last") if copy else swapped


def rotate(t: Tape, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`(x * cos) + (rotate_half(x) * sin)` of `apply_rotary_pos_emb`."""
    straight = mul(t, x, cos, "x * cos")
    half = x.shape[-1] // 2
    first = narrow(t, x, half)
    turned = mul(t, _join(t, x, first), sin, "rotated * sin")
    del first
    return add(t, straight, turned, "rotated")


def _join(t: Tape, x: Tensor, first: Tensor) -> Tensor:
    second = scale(t, narrow(t, x, x.shape[-1] - first.shape[-1]), "-x2")
    return cat(t, [second, first], "rotate_half(x)")
