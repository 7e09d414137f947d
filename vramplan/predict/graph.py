"""Tensors without values, and the graph of what made them: what autograd keeps of each.

A `Tensor` refers to a `Storage`, which is on the timeline from its making until Python drops the last reference to it.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple
from weakref import ref

from vramplan.element_types import ELEMENT_BYTES
from vramplan.predict.script import Script


class Kind(NamedTuple):
    """An element type."""

    name: str
    bytes: int


def _kind(name: str) -> Kind:
    return Kind(name, ELEMENT_BYTES[name])


FLOAT32, FLOAT16, BFLOAT16 = map(_kind, ("float32", "float16", "bfloat16"))
INT64, INT32, INT8, UINT8, BOOL = map(_kind, ("int64", "int32", "int8", "uint8", "bool"))
FLOATS = {kind.name: kind for kind in (FLOAT32, FLOAT16, BFLOAT16)}

Shape = tuple[int, ...]


class Storage:
    """Memory that tensors share; given back when the last of them goes."""

    __slots__ = ("block", "bytes", "script")

    def __init__(self, script: Script, block: int, size: int) -> None:
        self.script = script
        self.block = block
        self.bytes = size

    def __del__(self) -> None:
        self.script.free(self.block)


class Tensor:
    """A shape, an element type, a storage (None: a parameter, counted elsewhere) and a place in the graph."""

    __slots__ = (
        "__weakref__",
        "heads_first",
        "kind",
        "node",
        "repeats",
        "shape",
        "sliced",
        "storage",
        "transposed",
        "viewed",
    )

    def __init__(self, shape: Shape, kind: Kind, storage: Storage | None, node: "Node | None" = None) -> None:
        self.shape = shape
        self.kind = kind
        self.storage = storage
        self.node = node
        self.viewed = False
        """Whether it is a view, whose base holds the storage as well."""
        self.transposed = False
        """Of a gradient: whether it lies in memory as its transpose would."""
        self.heads_first = False
        """Whether it lies in memory as [batch, heads, seq, dim], unlike what a projection made; said of gradients, and
        of what Liger's norms make."""
        self.sliced = False
        """Of a gradient: whether it is part of a wider one, so that its heads lie apart in memory."""
        self.repeats: frozenset[int] = frozenset()
        """Of a gradient: the dimensions along which its memory repeats (`expand`)."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def is_leaf(self) -> bool:
        """Whether gradients end here: a trainable parameter, or an input cut off from the graph."""
        return self.node is not None and type(self.node.kept) is Leaf


class Leaf:
    """Where gradients end: the tensor they belong to, and their sum (AccumulateGrad, which holds its variable)."""

    __slots__ = ("grad", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.grad: Tensor | None = None


Gradients = Sequence[Tensor | None]
Backward = Callable[[list[Tensor], Tensor], Gradients]


class Holder:
    """Stands for a saved tensor that a checkpoint will recompute."""

    __slots__ = ("__weakref__", "frame", "index")

    def __init__(self, frame: "Frame", index: int) -> None:
        self.frame = frame
        self.index = index


Saved = Tensor | Holder


class Node:
    """One differentiable operation: where its gradients go, what it saved, what it keeps beyond its run."""

    __slots__ = ("backward", "edges", "gradient", "kept", "kind", "order", "parts", "pending", "saved", "scope")

    def __init__(
        self,
        order: int,
        kind: Kind,
        edges: "Sequence[Node | None]",
        saved: list[Saved],
        backward: Backward,
        scope: str = "",
    ) -> None:
        self.order = order
        self.kind = kind
        self.edges = edges
        self.saved = saved
        self.backward = backward
        self.scope = scope
        self.kept: object = None
        """What a Python autograd function puts on its context past `save_for_backward`: lives as long as the node."""
        self.parts: dict[int, Tensor] | None = None
        """The gradients of its results, where it has several; they come here instead of `gradient`."""
        self.pending = 0
        self.gradient: Tensor | None = None


class StopRecomputationError(BaseException):
    """Raised when a recomputation has saved everything that its forward saved; no error, whoever handles those."""


class Frame:
    """A non-reentrant checkpoint: forgets what its forward saves, and runs it again when backward first asks.

    torch/utils/checkpoint.py: `_CheckpointFrame`; recomputation stops early, at the last tensor that forward saved, and
    keeps nothing for nodes that have died meanwhile, since their outputs went nowhere.
    """

    __slots__ = ("autocast", "holders", "random", "recomputed", "recomputing", "run")

    def __init__(self, run: Callable[[], object], autocast: Kind | None, random: Tensor | None) -> None:
        self.run = run
        self.random = random
        self.autocast = autocast
        self.holders: list[ref[Holder]] = []
        self.recomputing = False
        self.recomputed: list[Tensor | None] = []

    def save(self, tensors: Sequence[Tensor]) -> list[Saved]:
        """What a node inside keeps of its tensors: holders in forward, when they are made again the tensors."""
        if not self.recomputing:
            first = len(self.holders)
            made = [Holder(self, first + i) for i in range(len(tensors))]
            self.holders += map(ref, made)
            return [*made]
        kept = list[Saved]()
        for tensor in tensors:
            same = Tensor(tensor.shape, tensor.kind, tensor.storage)
            wanted = self.holders[len(self.recomputed)]() is not None
            self.recomputed.append(same if wanted else None)
            if len(self.recomputed) == len(self.holders):
                raise StopRecomputationError
            kept.append(same)
        return kept

    def take(self, index: int) -> Tensor:
        """A recomputed tensor, for the node that saved it."""
        tensor, self.recomputed[index] = self.recomputed[index], None
        assert tensor is not None
        return tensor
