"""The operations that layers are made of: what each allocates, what it saves for backward, what its backward allocates.

Formulas: torch/tools/autograd/derivatives.yaml and FunctionsManual.cpp (2.13). Names follow torch.
"""

from vramplan.predict.operations.elementwise import (
    add,
    add_in_place,
    cast,
    clone,
    dropout,
    mul,
    pointwise,
    raised,
    scale,
    shift,
    subtract,
    wider,
)
from vramplan.predict.operations.norms import layer_norm, recorded_softmax, rms_norm, softmax
from vramplan.predict.operations.views import cat, narrow, padded, reshape, split, split_into, split_rows

__all__ = [
    "add",
    "add_in_place",
    "cast",
    "cat",
    "clone",
    "dropout",
    "layer_norm",
    "mul",
    "narrow",
    "padded",
    "pointwise",
    "raised",
    "recorded_softmax",
    "reshape",
    "rms_norm",
    "scale",
    "shift",
    "softmax",
    "split",
    "split_into",
    "split_rows",
    "subtract",
    "wider",
]
