"""What the training code tells whoever watches it. One step, three meters: fake tensors, CPU, CUDA."""

from typing import Protocol

from torch import Tensor

from vramplan.ledger import Component, Phase


class Meter(Protocol):
    """Watches a run. The training code calls these two and nothing else."""

    def enter(self, phase: Phase) -> None:
        """From now on the high-water mark belongs to `phase`."""

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Say what the tensor's storage is for; the last name wins.

        A storage that nobody names is attributed by its lifetime.
        """


class NoMeter:
    """Watches nothing: the bare loop."""

    def enter(self, phase: Phase) -> None:
        """Do nothing."""

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Do nothing."""
