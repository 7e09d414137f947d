"""Autograd on shapes: operations make tensors and are recorded, and the timeline of what they hold is written.

The modelling code is mirrored line by line in the modules above, so that locals live as long as in the libraries.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod

from vramplan.attention import Choice
from vramplan.ledger import Component, Phase
from vramplan.predict.graph import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOATS,
    INT8,
    INT32,
    INT64,
    UINT8,
    Backward,
    Frame,
    Gradients,
    Kind,
    Leaf,
    Node,
    Saved,
    Shape,
    Storage,
    Tensor,
)
from vramplan.predict.script import Block, Repeated, Script
from vramplan.predict.template import Template

#: What an operation is written with.
__all__ = [
    "BFLOAT16",
    "BOOL",
    "FLOAT16",
    "FLOAT32",
    "FLOATS",
    "INT8",
    "INT32",
    "INT64",
    "UINT8",
    "Gradients",
    "Kind",
    "Shape",
    "Tape",
    "Tensor",
]

_LEAF = 1 << 60  # accumulation nodes come before everything else (engine.cpp: their sequence number is UINT64_MAX)


class Tape:
    """Makes tensors, records operations, and writes the timeline."""

    def __init__(self, device: str, capability: tuple[int, int] = (8, 0), processors: int = 108) -> None:
        """By default for `catalog.gpus.REFERENCE_GPU`, which is not looked up for it."""
        self.cuda = device == "cuda"
        self.capability = capability
        self.processors = processors
        self.script = Script()
        self.recording = True
        self.training = True
        self.autocast: Kind | None = None
        self.casts: dict[int, tuple[Tensor, Tensor]] = {}
        self.flash_kind: Kind | None = None
        """What flash_attention_2 casts fp32 queries to where autocast is off: a quantised model's own type."""
        self.batch = self.seq = 1
        """Of the run, whose product every number of tokens is a multiple of."""
        self.frame: Frame | None = None
        self.leaves: list[Leaf] = []
        """The trained parameters."""
        self.biases: dict[str, Tensor] = {}
        """Of quantised layers, by path: running casts them."""
        self.choices: set[Choice] = set()
        """Attention kernels that were taken."""
        self.doubts: set[str] = set()
        """What is not known exactly."""
        self.scope = ""
        self._order = 0

    # -- tensors

    def new(self, shape: Shape, kind: Kind, label: str, component: Component | None = None) -> Tensor:
        """A tensor with memory of its own; without `component` its width and its lifetime decide what it is for."""
        block = self.script.alloc(self.scope, label, shape, kind.name, component)
        return Tensor(shape, kind, Storage(self.script, block, prod(shape) * kind.bytes))

    def like(self, tensor: Tensor, kind: Kind, label: str) -> Tensor:
        """A tensor with memory of its own, shaped and laid out as another one (what element by element follows)."""
        made = self.new(tensor.shape, kind, label)
        made.heads_first = tensor.heads_first
        return made

    def template(self) -> Template:
        """The timeline's parts for every batch and sequence, the kernels that were taken, and what is not known."""
        made = self.script.template(self.batch, self.seq)
        made.choices, made.doubts = frozenset(self.choices), frozenset(self.doubts)
        made.biases = {path: bias.kind.bytes for path, bias in self.biases.items()}
        return made

    def inherit(self, block: Block) -> Storage:
        """Memory that an earlier run left held."""
        return Storage(self.script, self.script.inherit(block), 0)

    def view(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Another tensor on the same storage, outside the graph."""
        out = Tensor(shape, tensor.kind, tensor.storage)
        out.viewed = True
        out.heads_first = tensor.heads_first
        out.sliced = tensor.sliced
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
            alike = whole and not grad.transposed
            leaf.grad = grad if alike else self.new(leaf.tensor.shape, leaf.tensor.kind, "gradient")
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
        """What a node keeps of the tensors it wants: their memory, or a holder inside a checkpoint.

        Not their place in the graph (saved_variable.cpp: a result knows its own node only weakly), so that a graph that
        no gradient reaches dies with its last output, not when Python's collector comes by.
        """
        wanted = [tensor for tensor in saved if tensor is not None]
        return [self.detach(tensor) for tensor in wanted] if self.frame is None else self.frame.save(wanted)

    def record(self, out: Tensor, inputs: Sequence[Tensor | None], saved: list[Saved], backward: Backward) -> Tensor:
        """`out` as the result of a differentiable operation; `backward` yields one gradient per input."""
        self._order += 1
        edges = [None if tensor is None else tensor.node for tensor in inputs]
        out.node = Node(self._order, out.kind, edges, saved, backward, self.scope)
        return out

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

    def product(self, *, biased: bool = False) -> None:
        """A matrix product has its output, and its library is called."""
        self.script.product(biased=biased)

    def enter(self, phase: Phase) -> None:
        """From here on the high-water mark belongs to `phase`."""
        self.script.enter(phase)

    def open(self, group: Repeated, hidden: Tensor, beside: Tensor | None = None) -> Tensor:
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

    def close(self, group: Repeated, hidden: Tensor, beside: Tensor | None = None) -> Tensor:
        """End a round of repeated layers."""
        if group.times == 1:
            return hidden
        passed = [hidden] if beside is None else [hidden, beside]
        for tensor in passed:
            self.script.free(self.block(tensor))
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

    def _reenter(self, group: Repeated, grad: Tensor) -> None:
        self.script.open(group, reverse=True)
        self._hand_over(grad)

    def _leave(self, grad: Tensor) -> None:
        self.script.free(self.block(grad))
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
    def block(tensor: Tensor) -> int:
        """The number of its memory in the script."""
        assert tensor.storage is not None, "a parameter's memory is counted elsewhere"
        return tensor.storage.block
