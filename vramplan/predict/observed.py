"""Tape operations by what a decoder's own code calls: the observer of `architecture.live_functions`.

Every method answers for one function of torch; formulas that no layer of the table needs stand here, the others in
`operations*.py`. What is not known exactly is noted in `doubts`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vramplan.attention import Choice
from vramplan.predict import operations as op
from vramplan.predict.loss import cross_entropy
from vramplan.predict.operations_attention import Heads, kernel
from vramplan.predict.projections import linear, lowered
from vramplan.predict.tape import BOOL, FLOAT32, FLOATS, INT8, INT32, INT64, UINT8, Gradients, Kind, Shape, Tape, Tensor

KINDS = {kind.name: kind for kind in (*FLOATS.values(), INT64, INT32, INT8, UINT8, BOOL)}

Spec = tuple[Shape, str]


@dataclass
class TapeObserver:
    """Writes what it is told onto a tape."""

    t: Tape
    choose: Callable[[Kind, Heads, bool], Choice | None]
    """The attention kernel for queries of a kind, with or without a mask; None: flash_attention_2."""

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

    def tracked(self, *xs: Tensor | None) -> bool:
        """Whether an operation on these is differentiated."""
        return self.t.needs_grad(*xs)

    def doubt(self, what: str) -> None:
        """Note something that is not known exactly."""
        self.t.doubts.add(what)

    def constant(self, shape: Shape, kind: str) -> Tensor:
        """A buffer, counted elsewhere."""
        return Tensor(shape, KINDS[kind], None)

    def constant_made(self, shape: Shape, kind: str) -> Tensor:
        """A new tensor outside the graph."""
        return self.t.new(shape, KINDS[kind], "made")

    def opaque(self, xs: Sequence[Tensor], outs: Sequence[Spec]) -> list[Tensor]:
        """An operation about which nothing is known: it saves its inputs, each gets a gradient of its own."""
        t = self.t
        made = [t.new(shape, KINDS[kind], "result") for shape, kind in outs]
        if not t.needs_grad(*xs):
            return made
        saved, shapes = t.save([x for x in xs if x.storage is not None]), [(x.shape, x.node) for x in xs]

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            return [None if node is None else t.new(shape, grad.kind, "gradient") for shape, node in shapes]

        for out in made:
            if out.kind.name in FLOATS:
                t.record(out, xs, saved, backward)
        return made

    # -- views and copies

    def detach(self, x: Tensor) -> Tensor:
        """The same memory outside the graph."""
        return self.t.detach(x)

    def view(self, x: Tensor, shape: Shape) -> Tensor:
        """Other dimensions; the gradient is a view too."""
        return op.reshape(self.t, x, shape)

    def part(self, x: Tensor, shape: Shape) -> Tensor:
        """A slice: its gradient is zeros with the slice filled in."""
        return self._with_gradient(x, self.t.view(x, shape), "slice gradient")

    def parts(self, x: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Slices that add up to the whole."""
        return op.split_into(self.t, x, list(shapes))

    def expand(self, x: Tensor, shape: Shape) -> Tensor:
        """A view that repeats: the gradient is summed."""
        return self._with_gradient(x, self.t.view(x, shape), "gradient summed over what was expanded")

    def copy(self, x: Tensor, shape: Shape) -> Tensor:
        """A copy with other dimensions or strides; the gradient passes."""
        t, before = self.t, x.shape
        out = t.new(shape, x.kind, "copy")
        if not t.needs_grad(x):
            return out
        return t.record(out, (x,), [], lambda saved, grad: (grad if before == shape else t.view(grad, before),))

    def cast(self, x: Tensor, kind: str) -> Tensor:
        """Another element type."""
        return op.cast(self.t, x, KINDS[kind])

    def join(self, xs: Sequence[Tensor], shape: Shape, kind: str) -> Tensor:
        """A concatenation: gradients are views of the incoming one."""
        t = self.t
        out = t.new(shape, KINDS[kind], "concatenation")
        if not t.needs_grad(*xs):
            return out
        shapes = [x.shape for x in xs]
        return t.record(out, xs, [], lambda saved, grad: [t.view(grad, each) for each in shapes])

    def rearranged(self, x: Tensor, shape: Shape) -> Tensor:
        """A copy whose gradient is a tensor of its own."""
        return self._with_gradient(x, self.t.new(shape, x.kind, "rearranged"), "rearranged gradient")

    # -- arithmetic

    def binary(self, word: str, a: Tensor, b: Tensor, shape: Shape, kind: str) -> Tensor:
        """Two tensors."""
        t = self.t
        if word == "add":
            return op.add(t, a, b)
        if word in ("sub", "subtract"):
            return op.subtract(t, a, b)
        if word in ("mul", "multiply"):
            return op.mul(t, a, b)
        return self._quotient(a, b, shape)

    def _quotient(self, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
        """`a / b`: the numerator is saved for the denominator's gradient, `-grad * ((a / b) / b)`."""
        t = self.t
        na, nb = t.needs_grad(a), t.needs_grad(b)
        saved = t.save((a if nb else None, b)) if na or nb else []
        out = t.new(shape, op.wider(a.kind, b.kind), "quotient")
        if not (na or nb):
            return out
        sa, sb = a.shape, b.shape

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            to_a = t.new(grad.shape, grad.kind, "numerator gradient") if na else None
            to_a = to_a if to_a is None or sa == grad.shape else t.new(sa, grad.kind, "numerator gradient, summed")
            if not nb:
                return to_a, None
            steps = [t.new(grad.shape, grad.kind, "denominator gradient") for _ in range(2)]
            to_b = steps.pop() if sb == grad.shape else t.new(sb, grad.kind, "denominator gradient, summed")
            return to_a, to_b

        return t.record(out, (a, b), saved, backward)

    def complex_product(self, a: Tensor, b: Tensor, shape: Shape) -> Tensor:
        """Complex numbers, each two fp32: the gradient is multiplied by the other factor's conjugate."""
        t = self.t
        wide = (*shape, 2)
        na, nb = t.needs_grad(a), t.needs_grad(b)
        saved = t.save((a if nb else None, b if na else None)) if na or nb else []
        out = t.new(wide, FLOAT32, "complex product")
        if not (na or nb):
            return out

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            return [t.new(wide, FLOAT32, "complex gradient") if n else None for n in (na, nb)]

        return t.record(out, (a, b), saved, backward)

    def shift(self, x: Tensor, kind: str) -> Tensor:
        """`x + number`."""
        return op.shift(self.t, self._of_kind(x, kind))

    def scale(self, x: Tensor, kind: str) -> Tensor:
        """`x * number`."""
        return op.scale(self.t, self._of_kind(x, kind))

    def _of_kind(self, x: Tensor, kind: str) -> Tensor:
        """An integer that becomes a fraction does so in the kernel; floats keep their type."""
        return x if x.kind.name in FLOATS else Tensor(x.shape, KINDS[kind], x.storage)

    def in_place(self, x: Tensor, other: Tensor | None, additive: bool) -> Tensor:
        """`x += other`: x's storage; a product in place saves the other factor."""
        t = self.t
        if other is not None and additive:
            return op.add_in_place(t, x, other)
        out = t.view(x, x.shape)
        if not t.needs_grad(x, other):
            return out
        nx, no = x.node is not None, other is not None and other.node is not None
        saved = t.save((other if nx else None, x if no else None))
        shape = None if other is None else other.shape

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            to_x = (grad if additive else t.new(grad.shape, grad.kind, "gradient in place")) if nx else None
            return to_x, t.new(shape, grad.kind, "gradient of the other") if no and shape is not None else None

        return t.record(out, (x, other), saved, backward)

    def overwritten(self, x: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Some of `x` set in place: its gradient is a copy with that part cleared, theirs are gathered."""
        t = self.t
        out = t.view(x, x.shape)
        out.node = x.node
        if not t.needs_grad(x, *others):
            return out
        saved = t.save([other for other in others if other.kind.name not in FLOATS])
        shapes = [(other.shape, other.node is not None) for other in others]
        needs = x.node is not None

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            own = t.new(grad.shape, grad.kind, "gradient, partly cleared") if needs else None
            return own, *(t.new(shape, grad.kind, "gradient of what was set") if n else None for shape, n in shapes)

        return t.record(out, (x, *others), saved, backward)

    # -- products

    def matmul(self, a: Tensor, b: Tensor, shape: Shape, copied_a: Shape, copied_b: Shape) -> Tensor:
        """A product of matrices, autocast's copies and those of operands that cannot be batched as they lie first."""
        t = self.t
        a, b = lowered(t, a, "operand cast"), lowered(t, b, "operand cast")
        a, b = (self._laid_out(x, copied) for x, copied in ((a, copied_a), (b, copied_b)))
        na, nb = t.needs_grad(a), t.needs_grad(b)
        saved = t.save((a if nb else None, b if na else None)) if na or nb else []
        out = t.new(shape, a.kind, "product")
        if not (na or nb):
            return out
        sides = ((a.shape, na), (b.shape, nb))

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            return [
                t.view(t.new(side, grad.kind, "product's gradient"), side) if needed else None for side, needed in sides
            ]

        return t.record(out, (a, b), saved, backward)

    def _laid_out(self, x: Tensor, shape: Shape) -> Tensor:
        """An operand of a batched product, copied and repeated as far as it has to be."""
        if not shape:
            return x
        if shape == x.shape:
            return op.clone(self.t, x, "operand of a batched product")
        repeated = self.t.new(shape, x.kind, "operand of a batched product")
        return self._with_gradient(x, repeated, "gradient summed over what was repeated")

    def added_in_product(self, product: Tensor, bias: Tensor) -> Tensor:
        """`baddbmm`: the sum is the product's own memory."""
        if not self.t.needs_grad(bias):
            return product
        return op.add_in_place(self.t, product, bias)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`F.linear`."""
        return linear(self.t, x, weight, bias, "output")

    def grouped(self, x: Tensor, weight: Tensor, offsets: Sequence[Tensor], shape: Shape) -> Tensor:
        """`grouped_mm`: autocast does not see it; saves x when the experts are trained."""
        t = self.t
        nx, nw = t.needs_grad(x), t.needs_grad(weight)
        saved = t.save((x if nw else None, weight if nx else None, *offsets)) if nx or nw else []
        out = t.new(shape, x.kind, "experts' product")
        if not (nx or nw):
            return out
        before, whole = x.shape, weight.shape

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            to_x = t.new(before, grad.kind, "experts' input gradient") if nx else None
            return to_x, t.new(whole, grad.kind, "experts' gradient") if nw else None

        return t.record(out, (x, weight), saved, backward)

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        """`F.conv1d` saves input and weight; the workspace that cuDNN chooses is not known."""
        t = self.t
        x, weight = lowered(t, x, "input cast"), lowered(t, weight, "weight cast")
        self.doubt("a convolution's workspace")
        needs = [t.needs_grad(y) for y in (x, weight, bias)]
        saved = t.save((x, weight)) if any(needs) else []
        out = t.new(shape, x.kind, "convolution")
        if not any(needs):
            return out
        shapes = [x.shape, weight.shape, weight.shape[:1]]

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            wanted = zip(shapes, needs, strict=True)
            return [t.new(shape, grad.kind, "convolution gradient") if need else None for shape, need in wanted]

        return t.record(out, (x, weight, bias), saved, backward)

    # -- functions of each element, norms, sums

    def pointwise(self, x: Tensor, name: str, saves: str, temporaries: int) -> Tensor:
        """A function of each element."""
        return op.pointwise(self.t, x, name, saves=saves, temporaries=temporaries)

    def clamp(self, x: Tensor, bounds: int, kind: str) -> Tensor:
        """`clamp`: saves its input; backward compares it with every bound, then selects."""
        t = self.t
        out = t.new(x.shape, KINDS[kind], "clamped")
        if not t.needs_grad(x):
            return out
        saved, shape = t.save((x,)), x.shape

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            inside = [t.new(shape, BOOL, "inside the bound") for _ in range(bounds)]
            result = t.new(shape, grad.kind, "clamped gradient")
            del inside
            return (result,)

        return t.record(out, (x,), saved, backward)

    def softmax(self, x: Tensor, kind: str) -> Tensor:
        """`softmax` along one dimension."""
        return op.softmax(self.t, x, KINDS[kind])

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """`nn.LayerNorm`; without a weight as with one that needs no memory."""
        return op.layer_norm(self.t, x, weight or Tensor((x.shape[-1],), x.kind, None), bias)

    def fused_rms_norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """`F.rms_norm`, one kernel on CUDA: saves its input and a reciprocal root per row."""
        t = self.t
        if x.kind is not FLOAT32:
            self.doubt("torch's own RMS norm in 16 bits")
        grad_needed = t.needs_grad(x, weight)
        saved = t.save((x, weight)) if grad_needed else []
        out = t.new(x.shape, x.kind, "norm output")
        roots = t.new((*x.shape[:-1], 1), FLOAT32, "norm rstd")
        if not grad_needed:
            return out
        saved += t.save((roots,))
        needs, shape = (x.node is not None, weight is not None and weight.node is not None), x.shape

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            return (
                t.new(shape, grad.kind, "norm gradient") if needs[0] else None,
                t.new(shape[-1:], grad.kind, "norm weight gradient") if needs[1] else None,
            )

        return t.record(out, (x, weight), saved, backward)

    def reduced(self, x: Tensor, shape: Shape, kind: str, name: str) -> Tensor:
        """`sum` hands its gradient on expanded; `mean` divides it into a full tensor; others need what they saw."""
        t = self.t
        out = t.new(shape, KINDS[kind], name)
        if not t.needs_grad(x):
            return out
        before = x.shape
        if name == "sum":
            return t.record(out, (x,), [], lambda saved, grad: (t.view(grad, before),))
        if name == "mean":
            return t.record(out, (x,), [], lambda saved, grad: (t.new(before, grad.kind, "mean gradient"),))
        saved = t.save((x, out))

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            temporary = t.new(before, grad.kind, f"{name} gradient temporary")
            result = t.new(before, grad.kind, f"{name} gradient")
            del temporary
            return (result,)

        return t.record(out, (x,), saved, backward)

    # -- choices

    def larger(self, a: Tensor, b: Tensor, shape: Shape, kind: str) -> Tensor:
        """`maximum` saves both; a gradient is divided where they are equal, then filled where the other was taken."""
        t = self.t
        out = t.new(shape, KINDS[kind], "larger")
        if not t.needs_grad(a, b):
            return out
        saved, sides = t.save((a, b)), [(x.shape, x.node is not None) for x in (a, b)]

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            half, mask = t.new(grad.shape, grad.kind, "half gradient"), t.new(grad.shape, BOOL, "equal")
            grads = [t.new(side, grad.kind, "gradient where taken") if needed else None for side, needed in sides]
            del half, mask
            return grads

        return t.record(out, (a, b), saved, backward)

    def chosen(self, x: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """`topk`, `sort`: saves the indices; the gradient is scattered into zeros."""
        t = self.t
        values, indices = t.new(shape, x.kind, "chosen"), t.new(shape, INT64, "indices")
        if not t.needs_grad(x):
            return values, indices
        saved, before = t.save((indices,)), x.shape
        t.record(values, (x,), saved, lambda saved, grad: (t.new(before, grad.kind, "gradient of the chosen"),))
        return values, indices

    def gather(self, x: Tensor, indices: Sequence[Tensor], shape: Shape) -> Tensor:
        """Saves the indices; the gradient is added into zeros of x's shape."""
        t = self.t
        saved = t.save(indices) if t.needs_grad(x) else []
        out = t.new(shape, x.kind, "gathered")
        if not t.needs_grad(x):
            return out
        before = x.shape
        return t.record(out, (x,), saved, lambda saved, grad: (t.new(before, grad.kind, "gathered gradient"),))

    def embedding(self, table: Tensor, shape: Shape) -> Tensor:
        """Rows of a table; a trained one gets a dense gradient."""
        return self._with_gradient(table, self.t.new(shape, table.kind, "output"), "table gradient")

    def where(self, mask: Tensor, branches: Sequence[Tensor | None], shape: Shape, kind: str) -> Tensor:
        """Saves the mask; each branch's gradient is the incoming one where it was taken."""
        t = self.t
        out = t.new(shape, KINDS[kind], "one or the other")
        if not t.needs_grad(*branches):
            return out
        saved = t.save((mask,))
        sides = [(None, False) if x is None else (x.shape, x.node is not None) for x in branches]

        def backward(saved: list[Tensor], grad: Tensor) -> Gradients:
            return [t.new(s, grad.kind, "branch gradient") if n and s is not None else None for s, n in sides]

        return t.record(out, branches, saved, backward)

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        """`masked_fill`: a copy; saves the mask."""
        t = self.t
        out = t.new(x.shape, x.kind, "masked copy")
        if not t.needs_grad(x):
            return out
        saved = t.save((mask,))
        return t.record(out, (x,), saved, lambda saved, grad: (t.new(grad.shape, grad.kind, "masked gradient"),))

    def dropout(self, x: Tensor) -> Tensor:
        """Active dropout."""
        return op.dropout(self.t, x)

    # -- attention and loss

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        *,
        dropped: bool,
        grouped: bool,
        heads_first: bool,
    ) -> tuple[Tensor, str]:
        """`scaled_dot_product_attention` by the kernel that the card takes."""
        t = self.t
        if t.needs_grad(mask):
            self.doubt("attention with a mask that depends on the input")
        value, key, query = (lowered(t, x, what) for x, what in ((value, "value"), (key, "key"), (query, "query")))
        heads, kv_heads = query.shape[1], key.shape[1]
        spec = Heads(
            heads,
            kv_heads,
            query.shape[-1],
            value.shape[-1],
            dropout=dropped,
            broadcasts=heads != kv_heads and not grouped,
            heads_first=heads_first,
        )
        choice = self.choose(query.kind, spec, mask is not None)
        backend = "flash_attention_2" if choice is None else choice.kernel.value
        if choice is not None:
            t.choices.add(choice)
        out = kernel(t, query, key, value, mask, spec, backend)
        layouts = {"math": "heads first", "flash": "like query", "cudnn": "like query"}
        return out, layouts.get(backend, "sequence first")

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """A region whose operations are not differentiated."""
        with self.t.no_grad():
            yield

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

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """`F.cross_entropy`."""
        return cross_entropy(self.t, logits, labels)

    def _with_gradient(self, x: Tensor, out: Tensor, label: str) -> Tensor:
        """`out`, whose gradient becomes a tensor of x's shape."""
        t, before = self.t, x.shape
        if not t.needs_grad(x):
            return out
        return t.record(out, (x,), [], lambda saved, grad: (t.new(before, grad.kind, label),))
