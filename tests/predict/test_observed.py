"""What is kept for backward of each function of torch that a model's own code calls, held against torch's autograd."""

from collections.abc import Callable
from typing import Any

import pytest

from vramplan.attention import Choice
from vramplan.predict.attention_sdpa import Heads
from vramplan.predict.observed.observer import TapeObserver
from vramplan.predict.tape import BOOL, FLOAT32, INT64, Kind, Tape, Tensor

pytest.importorskip("torch")

import torch
from torch.nn import functional

from vramplan.architecture.observed.handles import Handles
from vramplan.architecture.observed.mode import Observed

A, B, ROW = (torch.rand(shape) for shape in ((16, 64), (16, 64), (64,)))
NARROW = torch.rand(16, 24)
SQUARES = torch.rand(2, 64, 64) + 64 * torch.eye(64)
BATCHED, MATRICES = torch.rand(2, 16, 64), torch.rand(2, 64, 24)
MASK, NUMBERS = torch.ones(16, 64, dtype=torch.bool), torch.zeros(12, dtype=torch.int64)
PLACES, ONE, WHOLE = torch.zeros(16, 24, dtype=torch.int64), torch.tensor(2.0), torch.tensor(2)
KINDS = {torch.float32: FLOAT32, torch.int64: INT64, torch.bool: BOOL}


def filled(made: Any, a: Any, b: Any) -> Any:
    """`made` with its columns set in two ways, times `a`."""
    made[:, :24].copy_(a[:, :24])
    made[:, 24:] = b[:, 24:]
    return made * a


def scaled_in_part(a: Any, b: Any) -> Any:
    """`a`, some of it multiplied in place, times `b`."""
    a[:, :24].mul_(b[:, :24])
    return a * b


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # views and copies
    "slice": (lambda a: a[:, :24], (A,)),
    "split": (lambda a: a.split(32, -1)[0], (A,)),
    "repeat": (lambda a: a.repeat(2, 1), (A,)),
    "pad": (lambda a: functional.pad(a, (1, 1)), (A,)),
    "tril": (lambda a: a.tril(), (A,)),
    "cat": (lambda a, b: torch.cat([a, b]), (A, B)),
    # arithmetic
    "difference": (lambda a, b: a - b, (A, B)),
    "product with a row": (lambda a, b: a * b, (A, ROW)),
    "quotient by a row": (lambda a, b: a / b, (A, ROW)),
    "one less": (lambda a: 1 - a, (A,)),
    "one by": (lambda a: 1 / a, (A,)),
    "product in place": (lambda a, b: (a * 1).mul_(b), (A, B)),
    "difference in place": (lambda a, b: (a * 1).sub_(b), (A, B)),
    "nothing, filled in parts": (lambda a, b: filled(a.new_empty(16, 64), a, b), (A, B)),
    "a tensor, filled in parts": (lambda a, b: filled(a * 1, a, b), (A, B)),
    "filled with a row": (lambda a, row: filled(a.new_empty(16, 64), a, row.expand(16, 64)), (A, ROW)),
    "product in place, of a part": (lambda a, b: scaled_in_part(a * 1, b), (A, B)),
    "quotient of tensors": (lambda a, b: a / b, (A, B)),
    "by a tensor without dimensions": (lambda a, one: a / one.detach(), (A, ONE)),
    "a tensor without dimensions by": (lambda a, one: one.detach() / a, (A, ONE)),
    "a whole number by": (lambda a, whole: whole / a, (A, WHOLE)),
    "a tensor without dimensions less": (lambda a, one: one.detach() - a, (A, ONE)),
    "times a tensor without dimensions": (lambda a, one: a * one.detach(), (A, ONE)),
    "times a trained one": (lambda a, one: one * a, (A, ONE)),
    "times whole numbers": (lambda a, mask: a * mask.long(), (A, MASK)),
    # products
    "matmul": (lambda a, b: a @ b, (BATCHED, MATRICES)),
    "bmm": (torch.bmm, (BATCHED, MATRICES)),
    "mm": (torch.mm, (A, torch.rand(64, 24))),
    "mv": (torch.mv, (A, ROW)),
    "addmm": (torch.addmm, (torch.rand(24), A, torch.rand(64, 24))),
    "baddbmm": (torch.baddbmm, (torch.rand(2, 16, 24), BATCHED, MATRICES)),
    "solve_triangular": (lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), (SQUARES, MATRICES)),
    "conv1d": (functional.conv1d, (torch.rand(2, 3, 8), torch.rand(5, 3, 2))),
    # each element
    "power": (lambda a: a**3, (A,)),
    "silu": (functional.silu, (A,)),
    "gelu": (functional.gelu, (A,)),
    "relu": (functional.relu, (A,)),
    "sigmoid": (torch.sigmoid, (A,)),
    "tanh": (torch.tanh, (A,)),
    "mish": (functional.mish, (A,)),
    "leaky_relu": (functional.leaky_relu, (A,)),
    "hardtanh": (functional.hardtanh, (A,)),
    "hardswish": (functional.hardswish, (A,)),
    "softplus": (functional.softplus, (A,)),
    "exp": (torch.exp, (A,)),
    "expm1": (torch.expm1, (A,)),
    "log": (torch.log, (A,)),
    "log1p": (torch.log1p, (A,)),
    "sqrt": (torch.sqrt, (A,)),
    "rsqrt": (torch.rsqrt, (A,)),
    "square": (torch.square, (A,)),
    "sin": (torch.sin, (A,)),
    "erf": (torch.erf, (A,)),
    "cos": (torch.cos, (A,)),
    "abs": (torch.abs, (A,)),
    "log2": (torch.log2, (A,)),
    "reciprocal": (torch.reciprocal, (A,)),
    "elu": (functional.elu, (A,)),
    "selu": (functional.selu, (A,)),
    "relu6": (functional.relu6, (A,)),
    # over dimensions
    "softmax": (lambda a: a.softmax(-1), (A,)),
    "log_softmax": (lambda a: a.log_softmax(-1), (A,)),
    "sum": (lambda a: a.sum(-1), (A,)),
    "sum of what was one dimension": (lambda a: a.view(16, 4, 16).sum(1), (A,)),
    "sum of what was whole": (lambda a: a.view(16, 4, 16).sum(2), (A,)),
    "sum of what was laid out anew": (lambda a: a.view(16, 4, 16).transpose(1, 2).reshape(16, 8, 8).sum(1), (A,)),
    "sum of what changed places": (lambda a: a.t().sum(1), (A,)),
    "mean": (lambda a: a.mean(-1), (A,)),
    "norm": (lambda a: a.norm(dim=-1), (A,)),
    "logsumexp": (lambda a: a.logsumexp(-1), (A,)),
    "cumsum": (lambda a: a.cumsum(-1), (A,)),
    "cumprod": (lambda a: a.cumprod(-1), (A,)),
    "cummax": (lambda a: a.cummax(-1)[0], (A,)),
    "var": (lambda a: a.var(-1), (A,)),
    "std": (lambda a: a.std(-1), (A,)),
    "prod": (lambda a: a.prod(-1), (A,)),
    "amax": (lambda a: a.amax(-1), (A,)),
    "largest": (lambda a: a.max(-1)[0], (A,)),
    "largest of all": (torch.max, (A,)),
    "cross_entropy": (functional.cross_entropy, (torch.rand(12, 64), NUMBERS)),
    # choices
    "clamp": (lambda a: a.clamp(0, 0.5), (A,)),
    "maximum": (torch.maximum, (A, B)),
    "larger of two": (torch.max, (A, B)),
    "topk": (lambda a: a.topk(2)[0], (A,)),
    "rows": (lambda a, i: a[i], (A, NUMBERS)),
    "rows added in place": (lambda a, b, i: (a * 1).index_add_(0, i, b[:12]) * a, (A, B, NUMBERS)),
    "elements added": (lambda a, b, i: a.scatter_add(1, i, b), (A, NARROW, PLACES)),
    "gather": (lambda a, i: a.gather(1, i), (A, PLACES)),
    "scatter": (lambda a, b, i: a.scatter(1, i, b), (A, NARROW, PLACES)),
    "scatter in place": (lambda a, b, i: (a * 1).scatter_(1, i, b) * a, (A, NARROW, PLACES)),
    "scatter of a number": (lambda a, i: a.scatter(1, i, 0.0), (A, PLACES)),
    "index_put in place": (lambda a, b, i: (a * 1).index_put_((i,), b[:12]), (A, B, NUMBERS)),
    "index_select": (lambda a, i: a.index_select(0, i), (A, NUMBERS)),
    "embedding": (lambda a, i: functional.embedding(i, a), (A, NUMBERS)),
    "where": (lambda a, b, mask: torch.where(mask, a, b), (A, B, MASK)),
    "where of a tensor": (lambda a, b, mask: a.where(mask, b), (A, B, MASK)),
    "where of a tensor or zero": (lambda a, mask: a.where(mask, 0.0), (A, MASK)),
    "masked_fill": (lambda a, mask: a.masked_fill(mask, 0), (A, MASK)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_is_what_torch_saves(name: str) -> None:
    function, arguments = CASES[name]
    assert observed(function, arguments) == saved(function, arguments)


Kept = list[tuple[tuple[int, ...], str]]


def saved(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Kept:
    """Shapes and element types of what torch's own autograd keeps."""
    kept: Kept = []

    def pack(x: Any) -> Any:
        kept.append((tuple(x.shape), str(x.dtype).removeprefix("torch.")))
        return x

    given = [x.clone().requires_grad_(x.is_floating_point()) for x in arguments]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        assert function(*given).requires_grad
    return sorted(kept)


def observed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Kept:
    """The same of the tape on which the function's calls are written."""
    t = Tape("cpu")
    handles = Handles(TapeObserver(t, unused_kernel), padded=False)
    given = [t.new(tuple(x.shape), KINDS[x.dtype], "given") for x in arguments]
    for x in given:
        if x.kind is FLOAT32:
            t.require_grad(x)
    with Observed(handles), torch.device("meta"):
        out = handles.of(function(*map(handles.made, given)))
    return sorted(kept_by(out))


def kept_by(out: Tensor) -> Kept:
    """What the nodes that lead to a tensor hold."""
    kept: Kept = []
    nodes = [out.node]
    for node in nodes:
        assert node is not None
        kept += [(x.shape, x.kind.name) for x in node.saved if isinstance(x, Tensor)]
        nodes += [edge for edge in node.edges if edge is not None]
    return kept


def unused_kernel(kind: Kind, spec: Heads, masked: bool) -> Choice | None:
    raise AssertionError("no case here asks for attention")
