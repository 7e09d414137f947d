"""The script of a run: allocations and frees as they happen, repeated layers written once.

A script becomes timeline parts through a `Template`, which knows how each size follows from batch and sequence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vramplan.ledger import Component, Phase
from vramplan.predict.script_items import Item, Rounds
from vramplan.predict.template import Product, Template


class Repeated:
    """What is alike, such as layers: written once, happening `times` times."""

    __slots__ = ("times",)

    def __init__(self, times: int) -> None:
        self.times = times


class Body(NamedTuple):
    """What happens in every round of a group, whose number of rounds is not known until the run is over."""

    group: Repeated
    reverse: bool
    items: "list[Written]"


#: An allocation (block number), a free (its complement), the beginning of a phase, or rounds.
Written = int | Phase | Body


class Block:
    """One allocation: what it is, whose round it belongs to, whether it is still held."""

    __slots__ = ("alive", "component", "group", "kind", "label", "scope", "shape")

    def __init__(
        self,
        scope: str,
        label: str,
        shape: tuple[int, ...],
        kind: str,
        group: Repeated | None,
        component: Component | None,
    ) -> None:
        self.scope = scope
        self.label = label
        self.shape = shape
        self.kind = kind
        self.group = group
        self.component = component
        self.alive = True


class UnevenRounds(AssertionError):
    """Layers that were taken for alike hand each other more than their hidden states."""


class Script:
    """Writes into the current list: the run's own, or a round's."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.outer: list[Written] = []
        self._items = self.outer
        self._group: Repeated | None = None
        self._phase = Phase.LOAD
        self._products: dict[Product, int] = {}
        self._vocab: int | None = None
        self._misplaced = ""
        self._late: list[int] = []
        self.clipped: int | None = None
        """The last block of the clipping of gradients, if they are clipped."""

    def logits_width(self, vocab: int) -> None:
        """From now on a tensor whose last dimension is `vocab` belongs to the logits."""
        self._vocab = vocab

    def alloc(
        self, scope: str, label: str, shape: tuple[int, ...], kind: str, component: Component | None = None
    ) -> int:
        """A new block."""
        if component is None and shape and shape[-1] == self._vocab:
            component = Component.LOGITS
        number = len(self.blocks)
        self.blocks.append(Block(scope, label, shape, kind, self._group, component))
        self._items.append(number)
        return number

    def name(self, block: int, component: Component) -> None:
        """Say what a block is for; without a name its lifetime decides."""
        self.blocks[block].component = component

    def free(self, block: int) -> None:
        """Give a block back, wherever the run is: outside its own round, every round's instance goes."""
        info = self.blocks[block]
        if not info.alive:
            return
        info.alive = False
        if info.group is self._group:
            self._items.append(~block)
            return
        if info.group is None:
            self._late.append(block)  # some round is the last to need it: gone when they are over
            return
        if self._group is not None:
            # a destructor must not raise: `template` does
            self._misplaced = f"a round frees what another made: {info.scope} {info.label}"
            return
        self._items.append(Body(info.group, False, [~block]))

    def enter(self, phase: Phase) -> None:
        """From here on the high-water mark belongs to `phase`; logits are born in loss and backward alone."""
        if phase in (Phase.FORWARD, Phase.STEP):
            self._vocab = None
        self._phase = phase
        self._items.append(phase)

    def product(self, *, biased: bool) -> None:
        """A matrix product has its output; note where each thread's first one is, outside of rounds."""
        backward = self._phase is Phase.BACKWARD
        if Product(backward, biased) in self._products:
            return
        place = len(self.outer)
        if self._group is not None:
            place -= 1
            while place and type(before := self.outer[place - 1]) is int and before < 0:
                place -= 1  # what is handed to the first round is given back right before it
        self._products.setdefault(Product(backward, biased=False), place)
        if biased:
            self._products.setdefault(Product(backward, biased=True), place)

    def open(self, group: Repeated, *, reverse: bool = False) -> None:
        """What follows happens in every round of `group`."""
        body: list[Written] = []
        self.outer.append(Body(group, reverse, body))
        self._items = body
        self._group = group

    def close(self) -> None:
        """The round is over."""
        self._items = self.outer
        self._group = None
        self._items.extend(~block for block in self._late)
        self._late.clear()

    @contextmanager
    def rounds(self, group: Repeated) -> Iterator[None]:
        """What is made inside is made in every round of `group`."""
        if group.times == 1:
            yield
            return
        self.open(group)
        yield
        self.close()

    def take_over(self, block: int) -> int:
        """The same memory under a number that belongs to the current round."""
        self.blocks[block].alive = False
        self.outer.insert(-1, ~block)  # in front of the round, which is the last item
        return self.copy(block)

    def held(self) -> list[Block]:
        """What is not given back yet."""
        return [block for block in self.blocks if block.alive]

    def inherit(self, block: Block) -> int:
        """A block that an earlier run left, in each of the rounds that it belongs to."""
        number = len(self.blocks)
        component = block.component or Component.WORKSPACE
        self.blocks.append(Block(block.scope, block.label, block.shape, block.kind, block.group, component))
        self._items.append(number if block.group is None else Body(block.group, False, [number]))
        return number

    def copy(self, block: int) -> int:
        """A block like another one."""
        info = self.blocks[block]
        number = len(self.blocks)
        self.blocks.append(Block(info.scope, info.label, info.shape, info.kind, self._group, info.component))
        self._items.append(number)
        return number

    def keep_for_backward(self) -> None:
        """Backward begins: what is alive without a name has been kept for it."""
        for block in self.blocks:
            if block.alive and block.component is None:
                block.component = Component.ACTIVATIONS

    def template(self, batch: int, seq: int) -> Template:
        """The timeline's parts for every batch and sequence, given those of this run."""
        if self._misplaced:
            raise UnevenRounds(self._misplaced)
        template = Template(batch, seq)
        for block in self.blocks:
            template.block(f"{block.scope} {block.label}".strip(), block.kind, block.shape, block.component)
        template.write(_counted(self.outer), self._products)
        template.clipped = self.clipped
        return template


def _counted(items: list[Written]) -> list[Item]:
    return [Rounds(i.group.times, i.reverse, _counted(i.items)) if isinstance(i, Body) else i for i in items]
