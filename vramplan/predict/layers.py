"""Decoder layers grouped by what they weigh: runs of layers that follow each other and have the same weights."""

from itertools import groupby
from typing import NamedTuple

from vramplan.architecture import Architecture, Weight


class Run(NamedTuple):
    """`times` consecutive layers with the same weights (paths relative to the layer)."""

    weights: tuple[Weight, ...]
    times: int


def runs(architecture: Architecture) -> tuple[Run, ...]:
    """The decoder layers in order; layers that differ in their attention window alone are alike."""
    weights = [block.weights for block in architecture.blocks]
    same = [weights.index(w) for w in weights]
    return tuple(
        Run(weights[i], len(list(group))) for i, group in groupby(same[block] for block in architecture.layers)
    )
