"""TRL's fused output head as it runs on CUDA, on fake tensors: its Triton kernels work in place and take no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vramplan.measure.replacing import Replacement, replacing
from vramplan.training.loss import trl_trainer


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
