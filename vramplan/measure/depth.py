"""A deep model's run from the runs of two shallow ones: what one more period of layers adds, added as often as needed.

A shallow run of head and tail layers, and one with one more period of layers in the middle, must differ in the events
of these layers alone. Then the deep run is the second one with each stretch of middle events written once per period.
Every event keeps which layer's which block it is about, so that the result is the deep run event by event, not only
in total.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

from vramplan.ledger import Component, Phase
from vramplan.measure.attribution import Block, attribute
from vramplan.measure.tracker import Death, Tracker
from vramplan.timeline import Alloc, EmptyCache, Enter, Event, Free, Timeline


@dataclass(frozen=True)
class Depths:
    """Which layers of a deep model the shallow ones have: `head`, then a period that repeats, then `tail`."""

    head: int
    period: int
    tail: int
    times: int
    """How often the period occurs in the deep model."""

    @property
    def without(self) -> list[int]:
        """Layers of the deep model that make the shallow one without the period."""
        return [*range(self.head), *self._tail]

    @property
    def with_one(self) -> list[int]:
        """Layers of the deep model that make the shallow one with the period once."""
        return [*range(self.head + self.period), *self._tail]

    @property
    def with_longer_tail(self) -> "Depths":
        """The same model shortened by a period less: for a model whose last layer makes other blocks than the layers
        before it, so that the last layer does not stand next to the period."""
        return replace(self, tail=self.tail + self.period, times=self.times - 1)

    @property
    def _tail(self) -> range:
        end = self.head + self.period * self.times + self.tail
        return range(end - self.tail, end)

    def in_period(self, layer: int | None) -> bool:
        """Whether a layer of the run with one period is of the period."""
        return layer is not None and self.head <= layer < self.head + self.period

    def shift(self, layer: int | None) -> int | None:
        """A layer of the run with one period as the run without it counts, seen from behind the period; None stays."""
        return layer if layer is None or layer < self.head else layer - self.period


def find_depths(kinds: Sequence[int]) -> Depths | None:
    """How to shorten a stack of layers of these kinds; None when it is not worth it.

    The first layer is never part of the period: its input may need no gradient. Nor is the last one.
    """
    for period in range(1, len(kinds) // 2):
        head = 1 + period
        while head < len(kinds) and not _periodic(kinds, head - period, period):
            head += 1
        times, rest = divmod(len(kinds) - head - 1, period)
        depths = Depths(head, period, rest + 1, times)
        if times > 1 and len(depths.without) + len(depths.with_one) < len(kinds):
            return depths
    return None


def _periodic(kinds: Sequence[int], start: int, period: int) -> bool:
    return all(kinds[i] == kinds[i + period] for i in range(start, len(kinds) - period))


class Happening(NamedTuple):
    """An event by what it is about: the `rank`-th block of a layer (None: of no layer), taken or given back."""

    layer: int | None
    """Whose code runs."""
    owner: int | None
    """Whose block it is."""
    rank: int
    born: bool
    bytes: int


class _Run:
    """A shallow run whose blocks are numbered within their layers."""

    def __init__(self, tracker: Tracker) -> None:
        self.blocks: dict[int | None, list[Block]] = defaultdict(list)
        self.happenings: list[Happening | Enter | EmptyCache] = []
        self._ranks: dict[int, int] = {}
        self._together: list[Happening] = []
        phase = Phase.LOAD
        working_on: int | None = None
        for event in tracker.events:
            if isinstance(event, Death) and event.layer is None:
                self._together.append(self._death(event))
                continue
            self._settle(working_on if phase is Phase.STEP and isinstance(event, Block) else None)
            if isinstance(event, Block):
                self.happenings.append(self._birth(event))
                working_on = event.place.layer
            elif isinstance(event, Death):
                self.happenings.append(self._death(event))
            else:
                self.happenings.append(event)
                phase = event.phase if isinstance(event, Enter) else phase
        self._settle(None)

    def _settle(self, working_on: int | None) -> None:
        """Write what died together outside every layer.

        An optimizer's loop drops the last parameter's temporaries while it works on the next one: the next one's layer.
        Other things that die together (autocast's cache of casts, gradients) die in any order: one is chosen.
        """
        group, self._together = self._together, []
        if working_on is not None and {h.owner for h in group} <= {working_on, working_on - 1}:
            self.happenings += [h._replace(layer=working_on) for h in group]
        else:
            group.sort(key=lambda h: (-1 if h.owner is None else h.owner, h.rank))
            self.happenings += group

    def _birth(self, block: Block) -> Happening:
        layer = block.place.layer
        self._ranks[block.number] = len(self.blocks[layer])
        self.blocks[layer].append(block)
        return Happening(layer, layer, self._ranks[block.number], True, block.bytes)

    def _death(self, death: Death) -> Happening:
        owner = death.block.place.layer
        layer = owner if death.layer is None else death.layer
        return Happening(layer, owner, self._ranks[death.block.number], False, death.block.bytes)


class DepthMismatch(Exception):
    """The two shallow runs differ in more than the layers between them."""


def stretch(without: Tracker, with_one: Tracker, depths: Depths) -> Timeline:
    """The deep model's timeline; DepthMismatch when the shallow runs do not determine it."""
    short, long = _Run(without), _Run(with_one)
    growth = _growth(short, long, depths)
    return Timeline(tuple(_Writer(long, depths, growth, with_one.vocab).events()))


def _growth(short: _Run, long: _Run, depths: Depths) -> dict[tuple[int | None, int], int]:
    """How many bytes a block outside the period grows by per period (a tensor with an element per parameter does).

    Checks that the long run without the period's events is the short run.
    """
    growth: dict[tuple[int | None, int], int] = {}
    rest = [h for h in long.happenings if not isinstance(h, Happening) or not depths.in_period(h.layer)]
    if len(rest) != len(short.happenings):
        raise DepthMismatch(f"{len(rest)} events outside the period, {len(short.happenings)} without it")
    for a, b in zip(short.happenings, rest, strict=True):
        if not isinstance(b, Happening) or not isinstance(a, Happening):
            if a != b:
                raise DepthMismatch(f"{a} against {b}")
            continue
        # A layer's code may free a block of the layer next to it. Where that one is in the period, the short run has
        # another layer in its place: next to the head one of the same number, next to the tail one a period lower.
        from_front = depths.in_period(b.owner) and b.layer is not None and b.layer < depths.head
        owner = b.owner if from_front else depths.shift(b.owner)
        same = a.born == b.born and a.layer == depths.shift(b.layer) and a.owner == owner and a.rank == b.rank
        if not same:
            raise DepthMismatch(f"{a} against {b}")
        if a.bytes != b.bytes:
            growth[b.owner, b.rank] = b.bytes - a.bytes
    return growth


class _Writer:
    """Writes the deep run's events."""

    def __init__(self, run: _Run, depths: Depths, growth: dict[tuple[int | None, int], int], vocab: int | None) -> None:
        self._run = run
        self._depths = depths
        self._growth = growth
        self._vocab = vocab
        self._numbers: dict[tuple[int | None, int], int] = {}
        """Of the blocks that are held."""
        self._next = count()
        self._components: dict[int, Component] = {}

    def events(self) -> Iterator[Event]:
        """Every event of the deep run, the period's written `times` times."""
        middle: list[Happening] = []
        before: int | None = None
        last = (self._depths.times - 1) * self._depths.period
        for happening in self._run.happenings:
            layer = happening.layer if isinstance(happening, Happening) else None
            if isinstance(happening, Happening) and self._depths.in_period(layer):
                middle.append(happening)
                continue
            if middle:
                yield from self._repeated(middle, ascending=_ascending(before, layer, self._depths))
                middle = []
            if not isinstance(happening, Happening):
                yield happening
                continue
            before = layer if layer is not None else before
            yield self._event(happening, last if layer is not None and layer >= self._depths.head else 0)
        if middle:
            yield from self._repeated(middle, ascending=True)

    def _repeated(self, middle: list[Happening], *, ascending: bool) -> Iterator[Event]:
        rounds = range(self._depths.times)
        for i in rounds if ascending else reversed(rounds):
            for happening in middle:
                yield self._event(happening, i * self._depths.period)

    def _event(self, happening: Happening, shift: int) -> Event:
        """The event, its layers counted `shift` further."""
        layer = None if happening.owner is None else happening.owner + shift
        key = (layer, happening.rank)
        if not happening.born:
            number = self._numbers.pop(key, None)
            if number is None:
                raise DepthMismatch(f"no block {happening.rank} is held in layer {layer}")
            return Free(number)
        block = self._run.blocks[happening.owner][happening.rank]
        self._numbers[key] = next(self._next)
        size = block.bytes + self._growth.get((happening.owner, happening.rank), 0) * (self._depths.times - 1)
        return Alloc(self._numbers[key], size, self._component(block), _relabelled(block, layer))

    def _component(self, block: Block) -> Component:
        component = self._components.get(block.number)
        if component is None:
            component = self._components[block.number] = attribute(block, self._vocab)
        return component


def _ascending(before: int | None, after: int | None, depths: Depths) -> bool:
    """Whether a stretch of the period's events runs from the first layer to the last."""
    if after is not None:
        return after >= depths.head
    return before is None or before < depths.head


def _relabelled(block: Block, layer: int | None) -> str:
    if layer is None or layer == block.place.layer:
        return block.label
    return re.sub(rf"\.{block.place.layer}\b", f".{layer}", block.label, count=1)
