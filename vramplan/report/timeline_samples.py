"""A timeline thinned out to what the eye can see: one column per pixel or so, each with its highest moment."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from vramplan.ledger import STATIC_COMPONENTS, Component, Phase
from vramplan.timeline import Alloc, Enter, Event, Free, Timeline

#: What names in a trace begin with: peft's wrapper and the model inside it.
_PREFIX = re.compile(r"base_model\.(?:model\.)*")
_LAYER = re.compile(r"\.\d+(?=\.| |$)")
COLUMNS = 720
LEAST_SHARE = 0.09  # of the width for the shortest phase: the loss has ten events, backward ten thousand
INDEX = {component: i for i, component in enumerate(Component)}

Held = tuple[int, ...]  # bytes of each component, in the order of `Component`


class Visit(NamedTuple):
    """A stretch of one phase: its first event, the event behind its last, and where both stand (0 to 1)."""

    phase: Phase
    first: int
    behind: int
    left: float
    right: float

    def position(self, event: int) -> float:
        """Where the event of that index stands."""
        return self.left + (event - self.first) / (self.behind - self.first) * (self.right - self.left)


class Tensors(NamedTuple):
    """Tensors of one label and component that are in use at one moment."""

    label: str
    component: Component
    number: int
    bytes: int

    @property
    def words(self) -> str:
        """The label, and how many tensors have it where that is more than one."""
        return self.label if self.number == 1 else f"{self.label} \N{MULTIPLICATION SIGN} {self.number}"


@dataclass(frozen=True)
class Samples:
    """What a picture of a timeline shows; positions run from 0 to 1."""

    columns: tuple[Held, ...]
    """what is held at the highest moment of each column"""
    visits: tuple[Visit, ...]
    peak: int
    """the event that leads to the highest moment of all"""
    tensors: tuple[Tensors, ...]
    """in use at that moment, the most bytes first: weights and states left out unless there is nothing else"""

    def visit(self, event: int) -> Visit:
        """The stretch that the event of that index belongs to; the last one for indices behind it."""
        return next((visit for visit in self.visits if event < visit.behind), self.visits[-1])

    def position(self, event: int) -> float:
        """Where the event of that index stands."""
        visit = self.visit(event)
        return visit.position(min(event, visit.behind))

    @property
    def held(self) -> Held:
        """What is held at the highest moment."""
        return max(self.columns, key=sum)


def sample(timeline: Timeline, columns: int = COLUMNS) -> Samples:
    """The picture of a timeline; none of its peaks is lost, however short."""
    events = list(timeline.events())
    visits = _visits(events)
    positions = (visit.position(i) for visit in visits for i in range(visit.first, visit.behind))
    tops: list[Held | None] = [None] * columns  # the highest moment that begins in each column, and each column's last
    lasts: list[Held | None] = [None] * columns
    peak, highest = 0, -1
    for i, (position, held) in enumerate(zip(positions, _levels(events), strict=False)):
        column = int(position * columns)
        total = sum(held)
        top = tops[column]
        if top is None or total > sum(top):
            tops[column] = held
        lasts[column] = held
        if total > highest:
            highest, peak = total, i
    return Samples(tuple(_filled(tops, lasts)), visits, peak, _tensors(events[: peak + 1]))


def _levels(events: Iterable[Event]) -> Iterator[Held]:
    """What is held after each event."""
    sizes: dict[int, tuple[int, int]] = {}
    held = (0,) * len(INDEX)
    for event in events:
        if isinstance(event, Alloc | Free):
            if isinstance(event, Alloc):
                sizes[event.block] = component, size = INDEX[event.component], event.bytes
            else:
                component, size = sizes.pop(event.block)
                size = -size
            held = (*held[:component], held[component] + size, *held[component + 1 :])
        yield held


def _filled(tops: Sequence[Held | None], lasts: Sequence[Held | None]) -> Iterator[Held]:
    """The columns, those in which nothing happens holding what the one before them ended with."""
    held: Held = (0,) * len(INDEX)
    for top, last in zip(tops, lasts, strict=True):
        yield top or held
        held = last or held


def _visits(events: Sequence[Event]) -> tuple[Visit, ...]:
    """The stretches of the phases: as wide as they have events, but none narrower than a label needs."""
    starts = [(Phase.LOAD, 0)]
    for i, event in enumerate(events):
        if isinstance(event, Enter) and event.phase is not starts[-1][0]:
            starts.append((event.phase, i))
    ends = [*(first for _, first in starts[1:]), max(len(events), 1)]
    stretches = [(phase, first, end) for (phase, first), end in zip(starts, ends, strict=True) if end > first]
    least = min(LEAST_SHARE, 0.5 / len(stretches))
    widths = [max((end - first) / ends[-1], least) for _, first, end in stretches]
    edges = [edge / sum(widths) for edge in accumulate(widths, initial=0.0)]
    return tuple(Visit(*stretch, *edge) for stretch, edge in zip(stretches, pairwise(edges), strict=True))


def _readable(label: str) -> str:
    """The label without peft's and the model's prefixes and without which layer it is of."""
    return _LAYER.sub(".*", _PREFIX.sub("", label))


def _tensors(events: Iterable[Event]) -> tuple[Tensors, ...]:
    """What is in use after the events, tensors of one label and component together."""
    live: dict[int, Alloc] = {}
    for event in events:
        if isinstance(event, Alloc):
            live[event.block] = event
        elif isinstance(event, Free):
            del live[event.block]
    groups: dict[tuple[str, Component], list[int]] = {}
    for block in live.values():
        groups.setdefault((_readable(block.label), block.component), []).append(block.bytes)
    tensors = [Tensors(label, component, len(sizes), sum(sizes)) for (label, component), sizes in groups.items()]
    moving = [group for group in tensors if group.component not in STATIC_COMPONENTS]
    return tuple(sorted(moving or tensors, key=lambda group: -group.bytes))
