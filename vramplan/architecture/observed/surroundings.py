"""What stands around a model's own code: linear layers, parameters, checkpoints, the head and the loss."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from vramplan.architecture.observed.observer import Handle, Observer

#: A layer's output, and what it returns beside it.
Returned = tuple[Handle, Handle | None]


class Surroundings(Protocol):
    """What the model's own code finds around itself; paths are those within a decoder layer, or outside all of them."""

    @property
    def observer(self) -> Observer:
        """Who keeps account."""

    def projection(self, layer: int | None, path: str, *, own_code: bool) -> Callable[[Handle], Handle] | None:
        """The linear layer at `path`.

        None leaves the module to its own code; `own_code` says that it is not that of an ordinary linear layer.
        """

    def parameter(self, layer: int | None, path: str) -> Handle | None:
        """Any other parameter."""

    def adapted(self, layer: int | None, path: str) -> Mapping[str, Callable[[], Handle]]:
        """What a module that is about to run multiplies by instead of its own parameters, by their names."""

    def adapts(self, layer: int | None, path: str) -> tuple[str, ...]:
        """Names of the parameters of the module at `path` that have adapters."""

    def runs(self, layer: int) -> bool:
        """Whether this layer is run, or like one that was."""

    def layer(self, number: int, hidden: Handle, run: Callable[[Handle], Returned]) -> Returned:
        """A decoder layer on its input."""

    def embedded(self, hidden: Handle) -> None:
        """The embedding's output is there."""

    def logits(self, hidden: Handle, bias: Handle | None) -> Handle:
        """The output head, and the bias that it has, also where it shares the embedding's table."""

    def loss(self, logits: Handle) -> Handle:
        """The causal language model's loss."""

    def without_autocast(self) -> AbstractContextManager[None]:
        """A region that switches autocast off."""
