"""The optimizers that are modelled, by transformers' `OptimizerNames` spelling (training_args.py, 5.17)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from vramplan.errors import unknown


class Family(StrEnum):
    """Optimizers that keep the same states."""

    ADAMW = "adamw"
    LION = "lion"
    RMSPROP = "rmsprop"
    ADEMAMIX = "ademamix"
    SGD = "sgd"
    ADAFACTOR = "adafactor"
    ADAGRAD = "adagrad"


class Optimizer(NamedTuple):
    """What transformers makes of a name (trainer_optimizer.py)."""

    family: Family
    bitsandbytes: bool = False
    """Otherwise PyTorch's, and Adafactor transformers' own."""
    eight_bit: bool = False
    paged: bool = False
    """States in CUDA managed memory, which the driver may move to the host."""
    fused: bool = False
    """PyTorch's one kernel for all of a step, without intermediates."""


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw_torch": Optimizer(Family.ADAMW),
    "adamw_torch_fused": Optimizer(Family.ADAMW, fused=True),
    "adamw_8bit": Optimizer(Family.ADAMW, bitsandbytes=True, eight_bit=True),
    "adamw_bnb_8bit": Optimizer(Family.ADAMW, bitsandbytes=True, eight_bit=True),
    "paged_adamw_32bit": Optimizer(Family.ADAMW, bitsandbytes=True, paged=True),
    "paged_adamw_8bit": Optimizer(Family.ADAMW, bitsandbytes=True, eight_bit=True, paged=True),
    "sgd": Optimizer(Family.SGD),
    "adafactor": Optimizer(Family.ADAFACTOR),
    "adagrad": Optimizer(Family.ADAGRAD),
    "rmsprop": Optimizer(Family.RMSPROP),
    "rmsprop_bnb": Optimizer(Family.RMSPROP, bitsandbytes=True),
    "rmsprop_bnb_8bit": Optimizer(Family.RMSPROP, bitsandbytes=True, eight_bit=True),
    "rmsprop_bnb_32bit": Optimizer(Family.RMSPROP, bitsandbytes=True),
    "lion_32bit": Optimizer(Family.LION, bitsandbytes=True),
    "lion_8bit": Optimizer(Family.LION, bitsandbytes=True, eight_bit=True),
    "paged_lion_32bit": Optimizer(Family.LION, bitsandbytes=True, paged=True),
    "paged_lion_8bit": Optimizer(Family.LION, bitsandbytes=True, eight_bit=True, paged=True),
    "ademamix": Optimizer(Family.ADEMAMIX, bitsandbytes=True),
    "ademamix_8bit": Optimizer(Family.ADEMAMIX, bitsandbytes=True, eight_bit=True),
    "paged_ademamix_32bit": Optimizer(Family.ADEMAMIX, bitsandbytes=True, paged=True),
    "paged_ademamix_8bit": Optimizer(Family.ADEMAMIX, bitsandbytes=True, eight_bit=True, paged=True),
}


def optimizer(name: str) -> Optimizer:
    """The optimizer of that name; a UsageError with the nearest name when its states are not known."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def check_optimizer(name: str) -> str:
    """`name`, when its states are known; otherwise a UsageError."""
    optimizer(name)
    return name


def unpaged(name: str) -> tuple[str, ...]:
    """The optimizers that keep the same states as the paged optimizer `name` and page none, the nearest first.

    transformers has no name for bitsandbytes' own 32-bit AdamW: PyTorch's keeps two fp32 states per parameter too.
    """
    found = optimizer(name)
    if not found.paged:
        return ()
    same = tuple(other for other, kind in OPTIMIZERS.items() if kind == found._replace(paged=False))
    return same or tuple(
        other for other, kind in OPTIMIZERS.items() if kind.family is found.family and not kind.bitsandbytes
    )
