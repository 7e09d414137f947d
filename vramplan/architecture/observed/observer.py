"""What a decoder's own code is told as: the protocol between it and whoever keeps account of its memory."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol


class NotObservable(Exception):
    """The code does something that shapes alone do not decide; the message says what."""


#: The observer's own tensor; opaque here.
Handle = Any
Shape = tuple[int, ...]
#: From what was saved and the incoming gradient, a gradient for each input.
CustomBackward = Callable[[Sequence[Handle], Handle], Sequence[Handle | None]]
#: A shape, and torch's name of an element type.
Spec = tuple[Shape, str]


#: What a function of each element keeps for backward.
Saves = Literal["input", "result", "nothing"]
#: How the output of attention lies in memory.
Layout = Literal["sequence first", "heads first", "like query"]


class Observer(Protocol):
    """Keeps account of what each call makes, shares, and keeps for backward."""

    def shape(self, x: Handle) -> Shape:
        """The tensor's shape."""

    def kind(self, x: Handle) -> str:
        """The tensor's element type."""

    def autocast(self) -> str:
        """The type that matrix products are computed in; empty without autocast."""

    def raised(self, x: Handle) -> Handle:
        """What CUDA's autocast hands to an operation that it runs in fp32."""

    def widened(self, kind: str) -> str:
        """What CUDA's autocast sets as the result's type where it lets an operation convert its 16-bit input itself."""

    def tracked(self, *xs: Handle) -> bool:
        """Whether an operation on these is differentiated."""

    def doubt(self, what: str) -> None:
        """Note something that is not known exactly."""

    def constant(self, shape: Shape, kind: str) -> Handle:
        """A buffer of the model, counted elsewhere."""

    def constant_made(self, shape: Shape, kind: str) -> Handle:
        """A new tensor that needs no gradient."""

    def opaque(self, xs: Sequence[Handle], outs: Sequence[Spec]) -> Sequence[Handle]:
        """New tensors of an operation about which nothing is known: it saves its inputs."""

    def detach(self, x: Handle) -> Handle:
        """The same memory outside the graph."""

    def view(self, x: Handle, shape: Shape) -> Handle:
        """Other dimensions."""

    def part(self, x: Handle, shape: Shape) -> Handle:
        """A slice."""

    def parts(self, x: Handle, shapes: Sequence[Shape]) -> Sequence[Handle]:
        """Slices that add up to the whole."""

    def expand(self, x: Handle, shape: Shape) -> Handle:
        """A view that repeats."""

    def copy(self, x: Handle, shape: Shape) -> Handle:
        """A copy with other dimensions or strides."""

    def cast(self, x: Handle, kind: str) -> Handle:
        """Another element type."""

    def join(self, xs: Sequence[Handle], shape: Shape, kind: str) -> Handle:
        """A concatenation."""

    def rearranged(self, x: Handle, shape: Shape) -> Handle:
        """A copy whose gradient is a tensor of its own: repeated, padded, flipped, cut to a triangle."""

    def binary(self, word: str, a: Handle, b: Handle, shape: Shape, kind: str) -> Handle:
        """`add`, `sub`, `mul`, `div` of two tensors, which are `kind` together."""

    def complex_product(self, a: Handle, b: Handle, shape: Shape) -> Handle:
        """A product of complex numbers."""

    def shift(self, x: Handle, kind: str) -> Handle:
        """`x + number`."""

    def scale(self, x: Handle, kind: str) -> Handle:
        """`x * number`."""

    def in_place(self, word: str, x: Handle, other: Handle | None) -> Handle:
        """`x += other` and the like; None for a number."""

    def overwritten(self, x: Handle, others: Sequence[Handle]) -> Handle:
        """Some of `x` set to something else, in place."""

    def added_at(self, x: Handle, index: Handle, source: Handle, *, keeps_source: bool) -> Handle:
        """`source` added to what `index` names of `x`, in place."""

    def replaced(self, x: Handle, source: Handle | None) -> Handle:
        """All of `x` set to `source`, in place; None for a number."""

    def changed_within(self, whole: Handle, changed: Handle) -> Handle:
        """`whole`, of which `changed` is a view that was changed in place."""

    def matmul(
        self, a: Handle, b: Handle, shape: Shape, copied_a: Shape, copied_b: Shape, *, left_first: bool
    ) -> Handle:
        """A product; the shape in which an operand is laid out anew first, empty where it is not.

        `left_first`: the gradient of `a` is made before that of `b`.
        """

    def added_in_product(self, product: Handle, bias: Handle) -> Handle:
        """What `baddbmm` adds while it multiplies: no tensor of its own."""

    def solved(self, matrix: Handle, right: Handle, shape: Shape) -> Handle:
        """`solve_triangular`: what `matrix` times it is `right`."""

    def linear(self, x: Handle, weight: Handle, bias: Handle | None) -> Handle:
        """`F.linear`."""

    def grouped(self, x: Handle, weight: Handle, offsets: Sequence[Handle], shape: Shape) -> Handle:
        """`grouped_mm`: rows times the matrix of their group."""

    def convolved(self, x: Handle, weight: Handle, bias: Handle | None, shape: Shape) -> Handle:
        """`F.conv1d`."""

    def pointwise(self, x: Handle, name: str, saves: Saves, temporaries: int) -> Handle:
        """A function of each element; `temporaries` full-size tensors exist besides while its gradient is made."""

    def clamp(self, x: Handle, bounds: int, kind: str) -> Handle:
        """`clamp`."""

    def softmax(self, x: Handle, kind: str) -> Handle:
        """`softmax(x, -1, dtype=kind)`."""

    def layer_norm(self, x: Handle, weight: Handle | None, bias: Handle | None) -> Handle:
        """`F.layer_norm`."""

    def fused_rms_norm(self, x: Handle, weight: Handle | None) -> Handle:
        """`F.rms_norm`."""

    def sum(self, x: Handle, shape: Shape, kind: str, dims: Sequence[int]) -> Handle:
        """`sum` over dimensions."""

    def reduced(self, x: Handle, shape: Shape, kind: str, name: str) -> Handle:
        """`mean` and others over dimensions."""

    def larger(self, a: Handle, b: Handle, shape: Shape, kind: str) -> Handle:
        """`maximum`, `minimum`."""

    def chosen(self, x: Handle, shape: Shape, keeps_input: bool) -> tuple[Handle, Handle]:
        """`topk`, `sort`: values and where they were."""

    def gather(self, x: Handle, indices: Sequence[Handle], shape: Shape, keeps_input: bool) -> Handle:
        """Elements at indices."""

    def embedding(self, table: Handle, indices: Handle, shape: Shape) -> Handle:
        """Rows of a table."""

    def where(self, mask: Handle, branches: Sequence[Handle | None], shape: Shape, kind: str) -> Handle:
        """One or the other."""

    def masked(self, x: Handle, mask: Handle) -> Handle:
        """`masked_fill`."""

    def dropout(self, x: Handle) -> Handle:
        """Active dropout."""

    def attention(
        self, query: Handle, key: Handle, value: Handle, mask: Handle | None, *, dropped: bool, causal: bool,
        grouped: bool, heads_first: bool,
    ) -> tuple[Handle, Layout]:  # fmt: skip
        """`scaled_dot_product_attention`, and how its output lies."""

    def unrecorded(self) -> AbstractContextManager[None]:
        """A region whose operations are not differentiated."""

    def custom(
        self, out: Handle, inputs: Sequence[Handle], saved: Sequence[Handle], backward: CustomBackward
    ) -> Handle:
        """`out` as the result of an operation with a derivative of its own."""

    def cross_entropy(self, logits: Handle, labels: Handle) -> Handle:
        """`F.cross_entropy`."""
