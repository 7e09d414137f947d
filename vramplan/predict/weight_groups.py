"""A model's weights in groups that repeat: decoder layers that follow each other and are alike are one group."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from vramplan.architecture import Architecture, Weight


class Group(NamedTuple):
    """Weights that exist `times` times."""

    weights: tuple[Weight, ...]
    times: int


def layer_groups(architecture: Architecture) -> tuple[Group, ...]:
    """The decoder layers in order, their weights' paths relative to the layer; layers that differ in their attention
    window alone are alike."""
    weights = [block.weights for block in architecture.blocks]
    same = [weights.index(w) for w in weights]
    return tuple(
        Group(weights[i], len(list(group))) for i, group in groupby(same[block] for block in architecture.layers)
    )


def first_apart(groups: Iterable[Group]) -> Iterator[Group]:
    """The groups; of each that repeats, its first occurrence is a group of its own."""
    for weights, times in groups:
        yield Group(weights, 1)
        if times > 1:
            yield Group(weights, times - 1)
