"""A model's own code on a tape: every method answers for what one function of torch is told as."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vramplan.architecture.observed.observer import Layout, Saves
from vramplan.predict import operations as op
from vramplan.predict.linear import linear
from vramplan.predict.loss import cross_entropy
from vramplan.predict.observed import arithmetic, attention, choices, in_place, products, reductions, views
from vramplan.predict.observed.opaque import opaque
from vramplan.predict.operations import indexing
from vramplan.predict.operations.gradients import own_gradient, saved_for
from vramplan.predict.tape import BOOL, FLOAT32, FLOATS, INT8, INT32, INT64, UINT8, Shape, Tape, Tensor

_KINDS = {kind.name: kind for kind in (*FLOATS.values(), INT64, INT32, INT8, UINT8, BOOL)}


@dataclass
class TapeObserver:
    """Writes what it is told onto a tape."""

    t: Tape
    choose: attention.Choose

    # -- what tensors are

    def shape(self, x: Tensor) -> Shape:
        """The tensor's shape."""
        return x.shape

    def kind(self, x: Tensor) -> str:
        """The tensor's element type."""
        return x.kind.name

    def autocast(self) -> str:
        """The type that matrix products are computed in."""
        return self.t.autocast.name if self.t.autocast else ""

    def raised(self, x: Tensor) -> Tensor:
        """What CUDA's autocast hands to an operation that it runs in fp32."""
        return op.raised(self.t, x)

    def widened(self, kind: str) -> str:
        """What CUDA's autocast sets as the result's type (autocast_mode.h AT_FORALL_FP32_SET_OPT_DTYPE)."""
        return FLOAT32.name if self.t.autocast and self.t.cuda and kind in FLOATS else kind

    def tracked(self, *xs: Tensor | None) -> bool:
        """Whether an operation on these is differentiated."""
        return self.t.needs_grad(*xs)

    def doubt(self, what: str) -> None:
        """Note something that is not known exactly."""
        self.t.doubts.add(what)

    def constant(self, shape: Shape, kind: str) -> Tensor:
        """A buffer, counted elsewhere."""
        return Tensor(shape, _KINDS[kind], None)

    def constant_made(self, shape: Shape, kind: str) -> Tensor:
        """A new tensor outside the graph."""
        return self.t.new(shape, _KINDS[kind], "made")

    # -- views and copies

    def detach(self, x: Tensor) -> Tensor:
        """The same memory outside the graph."""
        return self.t.detach(x)

    def view(self, x: Tensor, shape: Shape) -> Tensor:
        """Other dimensions; the gradient is a view too."""
        return op.reshape(self.t, x, shape)

    def part(self, x: Tensor, shape: Shape) -> Tensor:
        """A slice."""
        return views.part(self.t, x, shape)

    def parts(self, x: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Slices that add up to the whole."""
        return op.split_into(self.t, x, list(shapes))

    def expand(self, x: Tensor, shape: Shape) -> Tensor:
        """A view that repeats."""
        return views.expand(self.t, x, shape)

    def copy(self, x: Tensor, shape: Shape) -> Tensor:
        """A copy with other dimensions or strides."""
        return views.copy(self.t, x, shape)

    def cast(self, x: Tensor, kind: str) -> Tensor:
        """Another element type."""
        return op.cast(self.t, x, _KINDS[kind])

    def join(self, xs: Sequence[Tensor], shape: Shape, kind: str) -> Tensor:
        """A concatenation."""
        return views.join(self.t, xs, shape, _KINDS[kind])

    def rearranged(self, x: Tensor, shape: Shape) -> Tensor:
        """Repeated, padded, flipped, cut to a triangle."""
        return views.rearranged(self.t, x, shape)

    # -- arithmetic

    def binary(self, word: str, a: Tensor, b: Tensor, shape: Shape, kind: str) -> Tensor:
        """Two tensors."""
        return arithmetic.binary(self.t, word, a, b, shape, _KINDS[kind])

    def complex_product(self, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
        """A product of complex numbers."""
        return arithmetic.complex_product(self.t, a, b, shape)

    def shift(self, x: Tensor, kind: str) -> Tensor:
        """`x + number`."""
        return op.shift(self.t, self._of_kind(x, kind))

    def scale(self, x: Tensor, kind: str) -> Tensor:
        """`x * number`."""
        return op.scale(self.t, self._of_kind(x, kind))

    def _of_kind(self, x: Tensor, kind: str) -> Tensor:
        """An integer that becomes a fraction does so in the kernel; floats keep their type."""
        return x if x.kind.name in FLOATS else Tensor(x.shape, _KINDS[kind], x.storage)

    def in_place(self, word: str, x: Tensor, other: Tensor | None) -> Tensor:
        """`x += other` and the like."""
        return in_place.computed(self.t, x, other, word)

    def overwritten(self, x: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Some of `x` set in place."""
        return in_place.overwritten(self.t, x, others)

    def added_at(self, x: Tensor, index: Tensor, source: Tensor, *, keeps_source: bool) -> Tensor:
        """`index_add_`, `scatter_add_`."""
        return in_place.added_at(self.t, x, index, source, keeps_source)

    def replaced(self, x: Tensor, source: Tensor | None) -> Tensor:
        """All of `x` set in place."""
        return in_place.replaced(self.t, x, source)

    def changed_within(self, whole: Tensor, changed: Tensor) -> Tensor:
        """What was changed through a view."""
        return in_place.changed_within(self.t, whole, changed)

    # -- products

    def matmul(
        self, a: Tensor, b: Tensor, shape: Shape, copied_a: Shape, copied_b: Shape, *, left_first: bool
    ) -> Tensor:
        """A product of matrices."""
        return products.matmul(self.t, a, b, shape, copied_a, copied_b, left_first=left_first)

    def added_in_product(self, product: Tensor, bias: Tensor) -> Tensor:
        """What `baddbmm` adds while it multiplies."""
        return products.added_in_product(self.t, product, bias)

    def solved(self, matrix: Tensor, right: Tensor, shape: Shape) -> Tensor:
        """`solve_triangular`."""
        return products.solved(self.t, matrix, right, shape)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`F.linear`."""
        return linear(self.t, x, weight, bias, "output")

    def grouped(self, x: Tensor, weight: Tensor, offsets: Sequence[Tensor], shape: Shape) -> Tensor:
        """`grouped_mm`."""
        return indexing.grouped_product(self.t, x, weight, offsets, shape)

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        """`F.conv1d`."""
        return products.convolved(self.t, x, weight, bias, shape)

    # -- functions of each element, norms, sums

    def pointwise(self, x: Tensor, name: str, saves: Saves, temporaries: int) -> Tensor:
        """A function of each element."""
        return op.pointwise(self.t, x, name, saves=saves, temporaries=temporaries)

    def dropout(self, x: Tensor) -> Tensor:
        """Active dropout."""
        return op.dropout(self.t, x)

    def softmax(self, x: Tensor, kind: str) -> Tensor:
        """`softmax` along one dimension."""
        return op.softmax(self.t, x, _KINDS[kind])

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """`nn.LayerNorm`; without a weight as with one that needs no memory."""
        return op.layer_norm(self.t, x, weight or Tensor((x.shape[-1],), x.kind, None), bias)

    def fused_rms_norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """`F.rms_norm`."""
        return reductions.fused_rms_norm(self.t, x, weight)

    def sum(self, x: Tensor, shape: Shape, kind: str, dims: Sequence[int]) -> Tensor:
        """`sum` over dimensions."""
        return reductions.summed(self.t, x, shape, _KINDS[kind], dims)

    def reduced(self, x: Tensor, shape: Shape, kind: str, name: str) -> Tensor:
        """`mean` and others over dimensions."""
        return reductions.reduced(self.t, x, shape, _KINDS[kind], name)

    # -- choices

    def clamp(self, x: Tensor, bounds: int, kind: str) -> Tensor:
        """`clamp`."""
        return indexing.clamp(self.t, x, bounds, _KINDS[kind])

    def larger(self, a: Tensor, b: Tensor, shape: Shape, kind: str) -> Tensor:
        """`maximum`, `minimum`."""
        return choices.larger(self.t, a, b, shape, _KINDS[kind])

    def chosen(self, x: Tensor, shape: Shape, keeps_input: bool) -> tuple[Tensor, Tensor]:
        """`topk`, `sort`."""
        return indexing.topk(self.t, x, shape, keeps_input=keeps_input)

    def gather(self, x: Tensor, indices: Sequence[Tensor], shape: Shape, keeps_input: bool) -> Tensor:
        """Elements at indices."""
        return indexing.gather(self.t, x, indices, shape, keeps_input=keeps_input)

    def embedding(self, table: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        """Rows of a table; a trained one gets a dense gradient, for which the indices are kept."""
        saved = saved_for(self.t, table, indices)
        return own_gradient(self.t, table, self.t.new(shape, table.kind, "output"), "table gradient", saved)

    def where(self, mask: Tensor, branches: Sequence[Tensor | None], shape: Shape, kind: str) -> Tensor:
        """One or the other."""
        return choices.where(self.t, mask, branches, shape, _KINDS[kind])

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """`masked_fill`."""
        return indexing.masked_fill(self.t, x, mask)

    # -- attention, the loss, and what has no formula here

    def attention(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, dropped: bool, causal: bool,
        grouped: bool, heads_first: bool,
    ) -> tuple[Tensor, Layout]:  # fmt: skip
        """`scaled_dot_product_attention` by the kernel that the card takes."""
        return attention.attention(
            self.t,
            self.choose,
            query,
            key,
            value,
            mask,
            dropped=dropped,
            causal=causal,
            grouped=grouped,
            heads_first=heads_first,
        )

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`F.cross_entropy`."""
        return cross_entropy(self.t, logits, labels)

    def opaque(self, xs: Sequence[Tensor], outs: Sequence[tuple[Shape, str]]) -> list[Tensor]:
        """An operation about which nothing is known."""
        return opaque(self.t, xs, [(shape, _KINDS[kind]) for shape, kind in outs])

    def custom(
        self,
        out: Tensor,
        inputs: Sequence[Tensor],
        saved: Sequence[Tensor],
        backward: Callable[[Sequence[Tensor], Tensor], Sequence[Tensor | None]],
    ) -> Tensor:
        """An operation with a derivative of its own (`torch.autograd.Function`)."""
        t = self.t
        if not t.needs_grad(*inputs):
            return out
        return t.record(t.view(out, out.shape), inputs, t.save(saved), backward)

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """A region whose operations are not differentiated."""
        with self.t.no_grad():
            yield
