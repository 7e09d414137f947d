"""What a model's own code leaves behind in its modules: buffers in the place of others, tensors in attributes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vramplan.architecture.observed.observer import Observer

_Tensors = dict[str, torch.Tensor]


@contextmanager
def cleared(modules: Iterable[nn.Module], observer: Observer) -> Iterator[None]:
    """These modules are as they were afterwards; the observer is told of what a real run would go on with.

    A buffer that the first step replaces by one of another size is that of all later steps, and what an attribute holds
    outlives the step: neither belongs to the layer that made it.
    """
    before = [(module, module._buffers.copy(), _attributes(module)) for module in modules]
    try:
        yield
    finally:
        for module, buffers, attributes in before:
            for name in _left(module._buffers, buffers):
                observer.doubt(f"what its code puts in the place of the buffer '{name}'")
            for name in _attributes(module).keys() - attributes.keys():
                observer.doubt(f"what its code keeps in '{name}' for the next step")
                setattr(module, name, None)
            module._buffers.update(buffers)
            vars(module).update(attributes)


def _attributes(module: nn.Module) -> _Tensors:
    return {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}


def _left(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Names of what now takes another number of bytes."""
    return [name for name, buffer in before.items() if _bytes(now.get(name)) != _bytes(buffer)]


def _bytes(buffer: torch.Tensor | None) -> int:
    return 0 if buffer is None else buffer.numel() * buffer.element_size()
