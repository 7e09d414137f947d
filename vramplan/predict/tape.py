"""Autograd on shapes: tensors without values, the graph that they build, and the timeline of what they hold.

A `Tensor` refers to a `Storage`, which is on the timeline from its making until Python drops the last reference to it.
The modelling code is mirrored line by line in the modules above, so that locals live as long as in the libraries.
Backward follows torch/csrc/autograd/engine.cpp (2.13): the newest ready node runs first, gradients that meet are added
in place into the first one when nobody else holds it, and what a node saved dies when the node has run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from math import prod
from sys import getrefcount
from typing import NamedTuple

from vramplan.attention import Choice
from vramplan.ledger import Component, Phase
from vramplan.predict.tape_parts import Block, Group, Script


class Kind(NamedTuple):
    """An element type."""

    name: str
    bytes: int


FLOAT32, FLOAT16, BFLOAT16 = Kind("float32", 4), Kind("float16", 2), Kind("bfloat16", 2)
INT64, INT32, INT8, UINT8, BOOL = Kind("int64", 8), Kind("int32", 4), Kind("int8", 1), Kind("uint8", 1), Kind("bool", 1)
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

    __slots__ = ("heads_first", "kind", "node", "shape", "storage", "viewed")

    def __init__(self, shape: Shape, kind: Kind, storage: Storage | None, node: "Node | None" = None) -> None:
        self.shape = shape
        self.kind = kind
        self.storage = storage
        self.node = node
        self.viewed = False
        """Whether it is a view, whose base holds the storage as well."""
        self.heads_first = False
        """Of a gradient: whether it lies in memory as [batch, heads, seq, dim], unlike what a projection made."""

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

    __slots__ = ("frame", "index")

    def __init__(self, frame: "Frame", index: int) -> None:
        self.frame = frame
        self.index = index


Saved = Tensor | Holder


class Node:
    """One differentiable operation: where its gradients go, what it saved, what it keeps beyond its run."""

    __slots__ = ("backward", "edges", "gradient", "kept", "kind", "order", "pending", "saved", "scope")

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
        self.pending = 0
        self.gradient: Tensor | None = None


class Frame:
    """A non-reentrant checkpoint: forgets what its forward saves, and runs it again when backward first asks.

    torch/utils/checkpoint.py: `_CheckpointFrame`; recomputation stops early, at the last tensor that forward saved.
    """

    __slots__ = ("autocast", "count", "random", "recomputed", "recomputing", "run")

    def __init__(self, run: Callable[[], object], autocast: Kind | None, random: Tensor | None) -> None:
        self.run = run
        self.random = random
        self.autocast = autocast
        self.count = 0
        self.recomputing = False
        self.recomputed: list[Tensor | None] = []


class StopRecomputationError(Exception):
    """Raised when a recomputation has saved everything that its forward saved."""


_LEAF = 1 << 60  # accumulation nodes come before everything else (engine.cpp: their sequence number is UINT64_MAX)


class Tape:
    """Makes tensors, records operations, runs backward, and writes the timeline."""

    def __init__(self, device: str, capability: tuple[int, int] = (8, 0), processors: int = 108) -> None:
        self.cuda = device == "cuda"
        self.capability = capability
        self.processors = processors
        self.script = Script()
        self.recording = True
        self.training = True
        self.autocast: Kind | None = None
        self.casts: dict[int, Tensor] = {}
        self.frame: Frame | None = None
        self.leaves: list[Leaf] = []
        """The trained parameters."""
        self.choices: set[Choice] = set()
        """Attention kernels that were taken."""
        self.doubts: set[str] = set()
        """What is not known exactly."""
        self.scope = ""
        self._order = 0

    # -- tensors

    def new(self, shape: Shape, kind: Kind, label: str) -> Tensor:
        """A tensor with memory of its own."""
        size = prod(shape) * kind.bytes
        return Tensor(shape, kind, Storage(self.script, self.script.alloc(self.scope, label, shape, kind.name), size))

    def like(self, tensor: Tensor, kind: Kind, label: str) -> Tensor:
        """A tensor with memory of its own, shaped and laid out as another one (what element by element follows)."""
        made = self.new(tensor.shape, kind, label)
        made.heads_first = tensor.heads_first
        return made

    def inherit(self, block: Block) -> Storage:
        """Memory that an earlier run left held."""
        return Storage(self.script, self.script.inherit(block), 0)

    def view(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Another tensor on the same storage, outside the graph."""
        out = Tensor(shape, tensor.kind, tensor.storage)
        out.viewed = True
        out.heads_first = tensor.heads_first
        return out

    def parameter(self, shape: Shape, kind: Kind, *, trained: bool) -> Tensor:
        """A parameter: its own memory is counted elsewhere, its gradient here."""
        tensor = Tensor(shape, kind, None)
        if trained:
            self.leaves.append(self.require_grad(tensor))
        return tensor

    def detach(self, tensor: Tensor) -> Tensor:
        """The same memory outside the graph."""
        return Tensor(tensor.shape, tensor.kind, tensor.storage)

    def require_grad(self, tensor: Tensor) -> Leaf:
        """`tensor.requires_grad_()`: gradients that reach it stay there."""
        leaf = Leaf(self.detach(tensor))
        self._order += 1
        tensor.node = Node(_LEAF + self._order, tensor.kind, (), [], lambda saved, grad: self._accumulate(leaf, grad))
        tensor.node.kept = leaf
        return leaf

    def _accumulate(self, leaf: Leaf, grad: Tensor) -> Gradients:
        """AccumulateGrad: the first gradient becomes `.grad` as it is, the next is added in place."""
        if leaf.grad is None:
            # accumulate_grad.h: taken as it is when it has the parameter's layout, else cloned
            storage = grad.storage
            whole = storage is not None and grad.numel * grad.kind.bytes == storage.bytes
            leaf.grad = grad if whole else self.new(leaf.tensor.shape, leaf.tensor.kind, "gradient")
            if leaf.tensor.storage is None and leaf.grad.storage is not None:
                self.script.name(leaf.grad.storage.block, Component.GRADIENTS)
        return ()

    # -- graph

    def needs_grad(self, *tensors: Tensor | None) -> bool:
        """Whether an operation on these is recorded."""
        if self.recording:
            for tensor in tensors:
                if tensor is not None and tensor.node is not None:
                    return True
        return False

    def save(self, saved: Sequence[Tensor | None]) -> list[Saved]:
        """What a node keeps of the tensors it wants: themselves, or a holder inside a checkpoint."""
        frame = self.frame
        if frame is None:
            return [tensor for tensor in saved if tensor is not None]
        holders: list[Saved] = []
        for tensor in saved:
            if tensor is None:
                continue
            if not frame.recomputing:
                holders.append(Holder(frame, frame.count))
                frame.count += 1
                continue
            frame.recomputed.append(Tensor(tensor.shape, tensor.kind, tensor.storage))
            if len(frame.recomputed) == frame.count:
                raise StopRecomputationError
        return holders

    def record(self, out: Tensor, inputs: Sequence[Tensor | None], saved: list[Saved], backward: Backward) -> Tensor:
        """`out` as the result of a differentiable operation; `backward` yields one gradient per input."""
        self._order += 1
        edges = [None if tensor is None else tensor.node for tensor in inputs]
        out.node = Node(self._order, out.kind, edges, saved, backward, self.scope)
        return out

    # -- backward

    def backward(self, root: Tensor, grad: Tensor | None) -> None:
        """Run the graph below `root`, whose gradient is `grad`; gradients stay in the leaves."""
        start = root.node
        assert start is not None
        self._count_uses(start)
        start.gradient = grad
        del grad
        ready: list[tuple[int, Node]] = [(-start.order, start)]
        recording, self.recording = self.recording, False
        autocast, self.autocast = self.autocast, None
        while ready:
            node = heappop(ready)[1]
            outputs = self._run(node)
            for edge in node.edges:
                output = outputs.pop(0) if outputs else None
                if edge is None:
                    continue
                if output is not None:
                    self._add(edge, output)
                    del output
                edge.pending -= 1
                if edge.pending == 0:
                    heappush(ready, (-edge.order, edge))
        self.recording, self.autocast = recording, autocast

    @staticmethod
    def _count_uses(start: Node) -> None:
        seen = {start}
        stack = [start]
        while stack:
            for edge in stack.pop().edges:
                if edge is not None:
                    edge.pending += 1
                    if edge not in seen:
                        seen.add(edge)
                        stack.append(edge)

    def _run(self, node: Node) -> list[Tensor | None]:
        """Call a node with its gradient; its saved tensors go when what it returns has its type, the gradient too.

        engine.cpp `call_function`: `validate_outputs` casts to what forward produced, one output after the other.
        """
        grad = node.gradient
        node.gradient = None
        saved = [self._unpack(item) if type(item) is Holder else item for item in node.saved]
        self.scope = node.scope
        outputs = list(node.backward(saved, grad))  # type: ignore[arg-type]
        for i, edge in enumerate(node.edges):
            output = outputs[i] if i < len(outputs) else None
            if output is not None and edge is not None and output.kind is not edge.kind:
                outputs[i] = self.like(output, edge.kind, "gradient cast")
        output = None
        node.saved = []
        return outputs

    def _add(self, node: Node, grad: Tensor) -> None:
        """Put a gradient where `node` will find it."""
        old = node.gradient
        if old is None:
            node.gradient = grad
            return
        # input_buffer.cpp `can_accumulate_inplace`: into the first when it is whole and nobody else holds its storage,
        # which the base of a view does
        storage = old.storage
        alone = not old.viewed and getrefcount(old) <= 3 and getrefcount(storage) <= 3
        if storage is None or not alone or storage.bytes != old.numel * old.kind.bytes:
            node.gradient = self.like(old, old.kind, "sum of gradients")

    def _unpack(self, holder: Holder) -> Tensor:
        frame = holder.frame
        if not frame.recomputing:
            self._recompute(frame)
        tensor = frame.recomputed[holder.index]
        frame.recomputed[holder.index] = None
        assert tensor is not None
        return tensor

    def _recompute(self, frame: Frame) -> None:
        frame.recomputing = True
        before = (self.frame, self.recording, self.autocast, self.casts)
        self.frame, self.recording, self.autocast, self.casts = frame, True, frame.autocast, {}
        # `fork_rng` sets the generator's present state aside meanwhile
        state = frame.random
        aside = None if state is None else self.new(state.shape, state.kind, "generator's state aside")
        try:
            frame.run()
        except StopRecomputationError:
            pass
        finally:
            self.frame, self.recording, self.autocast, self.casts = before
            del aside

    # -- regimes

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Operations inside are not recorded."""
        before, self.recording = self.recording, False
        yield
        self.recording = before

    @contextmanager
    def casting(self, kind: Kind | None) -> Iterator[None]:
        """Matrix products inside are computed in `kind`; 16-bit copies of trained parameters die at the end."""
        before, self.autocast = self.autocast, kind
        yield
        self.autocast = before
        self.casts.clear()

    # -- the timeline

    def enter(self, phase: Phase) -> None:
        """From here on the high-water mark belongs to `phase`."""
        self.script.enter(phase)

    def open(self, group: Group, hidden: Tensor, beside: Tensor | None = None) -> Tensor:
        """Begin a round of repeated layers: `hidden` changes hands, and so will its gradient in backward.

        So does a tensor that is held beside it, outside the graph.
        """
        if group.times == 1:
            return hidden
        self.script.open(group)
        self._hand_over(hidden)
        if beside is not None:
            self._hand_over(beside)
        return self._seam(hidden, lambda grad: self._leave(grad))

    def close(self, group: Group, hidden: Tensor, beside: Tensor | None = None) -> Tensor:
        """End a round of repeated layers."""
        if group.times == 1:
            return hidden
        passed = [hidden] if beside is None else [hidden, beside]
        for tensor in passed:
            self.script.free(self._block(tensor))
        self.script.close()
        for tensor in passed:
            self._adopt(tensor)
        return self._seam(hidden, lambda grad: self._reenter(group, grad))

    def _seam(self, hidden: Tensor, cross: Callable[[Tensor], None]) -> Tensor:
        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            cross(grad)
            return (grad,)

        out = Tensor(hidden.shape, hidden.kind, hidden.storage, hidden.node)
        return self.record(out, (hidden,), [], backward) if hidden.node is not None else out

    def _reenter(self, group: Group, grad: Tensor) -> None:
        self.script.open(group, reverse=True)
        self._hand_over(grad)

    def _leave(self, grad: Tensor) -> None:
        self.script.free(self._block(grad))
        self.script.close()
        self._adopt(grad)

    def _hand_over(self, tensor: Tensor) -> None:
        """The tensor belongs to the round from now on: the rounds before and after have one of their own."""
        assert tensor.storage is not None
        tensor.storage.block = self.script.take_over(tensor.storage.block)

    def _adopt(self, tensor: Tensor) -> None:
        assert tensor.storage is not None
        tensor.storage.block = self.script.copy(tensor.storage.block)

    @staticmethod
    def _block(tensor: Tensor) -> int:
        assert tensor.storage is not None
        return tensor.storage.block
