"""config.json -> every weight of the model: path, kind, shape. No torch."""

from vramplan.architecture.model import (
    HEAD,
    Architecture,
    Attention,
    Block,
    Dropouts,
    Experts,
    Facts,
    Mlp,
    Weight,
    WeightKind,
)
from vramplan.architecture.read import read_architecture

__all__ = [
    "HEAD",
    "Architecture",
    "Attention",
    "Block",
    "Dropouts",
    "Experts",
    "Facts",
    "Mlp",
    "Weight",
    "WeightKind",
    "read_architecture",
]
