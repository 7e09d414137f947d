"""What a storage is for, told from its name or from how it lived."""

from dataclasses import dataclass

import torch

from vramplan.element_types import type_name
from vramplan.ledger import Component, Phase


@dataclass(slots=True, frozen=True)
class Place:
    """Where in the model an operation ran."""

    module: str
    """Path of the innermost module; empty outside every module."""
    node: str
    """Name of the autograd node that ran it; empty in forward code."""
    layer: int | None
    """Decoder layer; None outside the layers."""


@dataclass(slots=True, eq=False)
class Block:
    """One storage from birth to death."""

    number: int
    bytes: int
    shape: tuple[int, ...]
    """Of the first tensor seen on it; `()` also for memory inside a kernel."""
    dtype: torch.dtype | None
    op: str
    """The operation that made it."""
    place: Place
    phase: Phase
    node: int | None = None
    """The number of the autograd node that made it; None in forward code."""
    kept: bool = False
    """Whether it was made by the forward and alive when backward began."""
    elsewhere: bool = False
    """Whether it is not in the device's memory: on the host, or managed."""
    component: Component | None = None
    """Set by an explicit name."""
    name: str = ""

    @property
    def label(self) -> str:
        """For people: `q_proj.weight`, or `mm [512, 4096] bfloat16 in model.layers.3.mlp.up_proj (MmBackward0)`."""
        if self.name:
            return self.name
        shape = f" {list(self.shape)} {type_name(self.dtype)}" if self.dtype is not None else ""
        where = f" in {self.place.module}" if self.place.module else ""
        return f"{self.op}{shape}{where}{f' ({self.place.node})' if self.place.node else ''}"


_WITH_LOGITS = (Phase.LOSS, Phase.BACKWARD, Phase.EVALUATION)


def attribute(block: Block, vocab: int | None) -> Component:
    """The component of a block: its explicit name first, then the logits family, then by lifetime.

    Without `vocab`, the width of logits, none are known.
    """
    if block.component is not None:
        return block.component
    if block.phase in _WITH_LOGITS and len(block.shape) > 1 and block.shape[-1] == vocab:
        return Component.LOGITS
    if block.kept:
        return Component.ACTIVATIONS
    return Component.WORKSPACE
