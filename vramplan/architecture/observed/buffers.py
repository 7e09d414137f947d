"""Buffers that a model's own code puts in the place of others while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vramplan.architecture.observed.observer import Observer


@contextmanager
def own_buffers(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Every buffer is back in its place afterwards; of one that was replaced by another size, the observer is told.

    The first step of a real run leaves the other one behind, so that neither its size nor the copy is a later step's.
    """
    before = [(module, module._buffers.copy()) for module in model.modules() if module._buffers]
    try:
        yield
    finally:
        for module, buffers in before:
            for name, buffer in buffers.items():
                if _bytes(module._buffers.get(name)) != _bytes(buffer):
                    observer.doubt(f"what its code puts in the place of the buffer '{name}'")
            module._buffers.update(buffers)


def _bytes(buffer: torch.Tensor | None) -> int:
    return 0 if buffer is None else buffer.numel() * buffer.element_size()
