"""Decoder layers grouped by what they weigh: runs of layers that follow each other and have the same weights."""

from itertools import groupby

from vramplan.architecture import Architecture
from vramplan.predict.base import Group


def runs(architecture: Architecture) -> tuple[Group, ...]:
    """The decoder layers in order, their weights' paths relative to the layer; layers that differ in their attention
    window alone are alike."""
    weights = [block.weights for block in architecture.blocks]
    same = [weights.index(w) for w in weights]
    return tuple(
        Group(weights[i], len(list(group))) for i, group in groupby(same[block] for block in architecture.layers)
    )
