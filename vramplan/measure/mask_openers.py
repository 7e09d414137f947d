"""What a mask of truths picks out of a fake tensor: all of it, for that is the most."""

from typing import Any

import torch
from torch import Tensor

from vramplan.measure.tracker import Opener

aten = torch.ops.aten


def _places(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Where a tensor is not zero: how many places these are fake tensors cannot know, and all are the most."""
    return torch.empty((args[0].numel(), args[0].dim()), dtype=torch.int64)


def places_of_truths(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What a mask of truths picks; ATen/TensorIndexing.h makes places of it first: all, for that is the most."""
    tensor, indices = args
    if not any(index is not None and index.dtype is torch.bool for index in indices):
        out: Tensor = func(*args, **kwargs)
        return out
    places: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype is torch.bool:
            places += aten.nonzero.default(index).unbind(1)
        else:
            places.append(index)
    picked: Tensor = func(tensor, places)
    return picked


#: What runs these operations instead of their registered fake versions.
MASK_OPENERS: dict[Any, Opener] = {aten.index.Tensor: places_of_truths, aten.nonzero.default: _places}
