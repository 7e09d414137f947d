"""TRL's fused output head as it runs on CUDA, on fake tensors: its Triton kernels work in place and take no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vramplan.measure.replacing import Replacement, replacing
from vramplan.measure.tracker import Opener
from vramplan.training.loss import trl_trainer

aten = torch.ops.aten


@contextmanager
def fused_head() -> Iterator[None]:
    """Inside, TRL (1.16 kernels/chunked_logprob.py) takes the paths that it takes on a card."""
    trainer = trl_trainer()
    kernels = import_module("trl.kernels.chunked_logprob")
    replaced = (
        Replacement(kernels, "_use_triton", _yes),
        Replacement(trainer.utils, "_use_triton", _yes),
        Replacement(kernels, "_forward_kernel", IdleKernel()),
        Replacement(kernels, "_backward_kernel", IdleKernel()),
        Replacement(kernels, "_addmm_fp32", _added),
        Replacement(kernels, "triton", TritonStandIn),
    )
    with replacing(replaced, create=True):  # triton may not be installed
        yield


def _yes(device: torch.device) -> bool:
    return True


class IdleKernel:
    """A kernel of Triton's: started on a grid, it changes what it is given and makes nothing."""

    def __getitem__(self, grid: object) -> Any:
        return lambda *args, **kwargs: None


class TritonStandIn:
    """What the code around the kernels calls."""

    @staticmethod
    def cdiv(size: int, block: int) -> int:
        """Blocks of that size that hold it."""
        return -(-size // block)


def _added(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`torch.addmm(..., out_dtype=torch.float32, out=total)`, which is CUDA's alone, adds up without a copy."""
    total.zero_()


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
