"""A step whose sizes follow from batch and sequence: built once, evaluated in a fraction of a millisecond.

The step is run once with prime numbers for batch and sequence that divide no size of the model. How often they divide a
tensor's dimension then says how the dimension follows from them.
"""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import NamedTuple

from vramplan.attention import Choice
from vramplan.attention_tiles import Tile
from vramplan.element_types import ELEMENT_BYTES
from vramplan.ledger import Component, Phase
from vramplan.predict.alike import folded
from vramplan.predict.moments import Moments
from vramplan.predict.reductions import row_sum_buffer
from vramplan.predict.script_items import Item, Rounds
from vramplan.timeline import Alloc, Enter, Free, Marks, Part, Repeat


class Padding(NamedTuple):
    """The sequence plus `extra`, rounded up to a multiple."""

    multiple: int
    extra: int

    def at(self, batch: int, seq: int) -> int:
        """The dimension for one batch and sequence."""
        return -(-(seq + self.extra) // self.multiple) * self.multiple


class Accumulators(NamedTuple):
    """Bytes for each head in the workspace of the efficient kernel's backward."""

    tile: Tile
    heads: int
    head_dim: int
    value_dim: int

    def at(self, batch: int, seq: int) -> int:
        """The dimension for one batch and sequence."""
        return self.tile.workspace(batch * self.heads, seq, seq, self.head_dim, self.value_dim)


class PartialSums(NamedTuple):
    """Bytes of the buffer while the rows of a matrix are added up on a card."""

    rows: int
    """For each token."""
    columns: int
    capability: tuple[int, int]
    multiprocessors: int

    def at(self, batch: int, seq: int) -> int:
        """The dimension for one batch and sequence."""
        return row_sum_buffer(batch * seq * self.rows, self.columns, self.capability, self.multiprocessors)


Rule = Padding | Accumulators | PartialSums


class Derived(int):
    """A dimension that is no product of batch and sequence: `rule` says how it follows from them."""

    rule: Rule

    @classmethod
    def by(cls, rule: Rule, batch: int, seq: int) -> "Derived":
        """The dimension for the batch and the sequence of the run."""
        made = cls(rule.at(batch, seq))
        made.rule = rule
        return made


def stretched(seq: int, multiple: int = 1, extra: int = 0) -> Derived:
    """The sequence plus `extra`, rounded up to a multiple, for a kernel that works in tiles."""
    return Derived.by(Padding(multiple, extra), 1, seq)


class Dimension(NamedTuple):
    """`factor * batch**b * seq**s`, or what `rule` says."""

    factor: int
    b: int
    s: int
    rule: Rule | None = None

    def at(self, batch: int, seq: int) -> int:
        """The dimension for one batch and sequence."""
        if self.rule is not None:
            return self.rule.at(batch, seq)
        size = self.factor
        if self.b:
            size *= batch**self.b
        return size * seq**self.s if self.s else size


class Size(NamedTuple):
    """Bytes of a tensor: `factor * batch**b * seq**s`, times its dimensions that follow a rule."""

    factor: int
    b: int
    s: int
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, element: int, shape: tuple[Dimension, ...]) -> "Size":
        """The size of a tensor of that shape, `element` bytes each."""
        plain = [d for d in shape if d.rule is None]
        factor = element * prod(d.factor for d in plain)
        return cls(
            factor, sum(d.b for d in plain), sum(d.s for d in plain), tuple(d.rule for d in shape if d.rule is not None)
        )

    def at(self, batch: int, seq: int) -> int:
        """The bytes for one batch and sequence."""
        size: int = self.factor * batch**self.b * seq**self.s
        for rule in self.rules:
            size *= rule.at(batch, seq)
        return size


class Product(NamedTuple):
    """A kind of matrix product, by what its library keeps once the first was made: cuBLAS, which computes all, a
    workspace per thread; cuBLASLt another for those with a bias."""

    backward: bool
    """Whether autograd's thread makes it."""
    biased: bool


class Template:
    """Parts of a timeline whose sizes are not filled in yet."""

    def __init__(self, batch: int, seq: int) -> None:
        self._batch = batch
        self._seq = seq
        self._kinds: dict[tuple[str, str, tuple[Dimension, ...]], int] = {}
        self._blocks: list[tuple[int, Component]] = []  # what kind of tensor, what it is for
        self._dimensions: dict[int, Dimension] = {}
        self._items: list[Item] = []
        self.choices: frozenset[Choice] = frozenset()
        """Attention kernels that the run took."""
        self.doubts: frozenset[str] = frozenset()
        """What the run did not know exactly."""
        self.biases: Mapping[str, int] = {}
        """Bytes per element of the biases of quantised layers once these ran, by path."""
        self.products: Mapping[Product, int] = {}
        """Before which part the first matrix product of each kind has its output."""
        self.clipped: int | None = None
        """The last block of the clipping of gradients, if they are clipped."""

    def block(self, name: str, kind: str, shape: tuple[int, ...], component: Component | None) -> None:
        """Describe the next block, as it was in the run."""
        key = (name, kind, tuple(map(self._dimension, shape)))
        number = self._kinds.setdefault(key, len(self._kinds))
        self._blocks.append((number, component or Component.WORKSPACE))

    def write(self, items: list[Item], products: Mapping[Product, int] | None = None) -> None:
        """The sequence of events: block numbers, their complements, phases, rounds."""
        self.products = products or {}
        self._items = folded(items, self._blocks, max(self.products.values(), default=-1) + 1)

    def lengthen(self, more: int) -> bool:
        """Add so many to the rounds before the last micro-batch; False, and nothing done, where these are no rounds."""
        for place in reversed(range(len(self._items))):
            item = self._items[place]
            if item is Phase.FORWARD:
                break
            if isinstance(item, Rounds) and Phase.FORWARD in item.items:
                self._items[place] = item._replace(times=item.times + more)
                return True
        return False

    def _dimension(self, size: int) -> Dimension:
        if type(size) is Derived:
            return Dimension(0, 0, 0, size.rule)
        found = self._dimensions.get(size)
        if found is None:
            b, rest = _power(size, self._batch)
            s, rest = _power(rest, self._seq)
            found = self._dimensions[size] = Dimension(rest, b, s)
        return found

    def marks(self, batch: int, seq: int, granularity: int) -> Marks:
        """What `Timeline(self.parts(batch, seq)).marks(granularity)` says, by arithmetic on sizes alone."""
        sizes, moments = self._moments
        return moments.marks([size.at(batch, seq) for size in sizes], granularity)

    @cached_property
    def _moments(self) -> tuple[tuple[Size, ...], Moments]:
        """The distinct sizes, and the moments that refer to them by number."""
        numbers: dict[Size, int] = {}
        sizes = (Size.of(ELEMENT_BYTES[kind], shape) for _, kind, shape in self._kinds)
        number = [numbers.setdefault(size, len(numbers)) for size in sizes]
        blocks = [(number[kind], component) for kind, component in self._blocks]
        return tuple(numbers), Moments(blocks, self._items)

    def parts(self, batch: int, seq: int) -> tuple[Part, ...]:
        """The timeline's parts for `batch` sequences of `seq` tokens."""
        sizes = {d: d.at(batch, seq) for d in self._dimensions.values()}
        made: list[tuple[int, str]] = []
        for name, kind, dimensions in self._kinds:
            shape = [sizes[d] if d in sizes else d.at(batch, seq) for d in dimensions]
            size = ELEMENT_BYTES[kind]
            for extent in shape:
                size *= extent
            made.append((size, f"{name} {kind} {shape}"))
        return self._filled(self._items, made)

    def _filled(self, items: list[Item], made: list[tuple[int, str]]) -> tuple[Part, ...]:
        parts: list[Part] = []
        blocks, new = self._blocks, tuple.__new__
        for item in items:
            if type(item) is int:
                if item < 0:
                    parts.append(new(Free, (~item,)))
                else:
                    number, component = blocks[item]
                    size, label = made[number]
                    parts.append(new(Alloc, (item, size, component, label)))
            elif type(item) is Rounds:
                parts.append(Repeat(self._filled(item.items, made), item.times, item.reverse))
            else:
                assert isinstance(item, Phase)
                parts.append(Enter(item))
        return tuple(parts)


def _power(size: int, prime: int) -> tuple[int, int]:
    """How often `prime` divides `size`, and what is left; a prime of 1 (a batch of one) never does."""
    power = 0
    while prime > 1 and size and size % prime == 0:
        size //= prime
        power += 1
    return power, size
