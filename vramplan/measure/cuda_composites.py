"""Operations that torch composes of others, and of other ones on CUDA than on the CPU.

Each is replaced at the dispatcher, so that it is met also where C++ calls it: dropout in attention's composite. Sources
are torch 2.13, below aten/src/ATen/native.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def cuda_composites() -> Iterator[None]:
    """Inside, the CPU's tensors take the kernels that CUDA's do."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("dropout", _dropout, "AutogradCPU")
        library.impl("softmax.int", _softmax(torch._softmax), "AutogradCPU")
        library.impl("log_softmax.int", _softmax(torch._log_softmax), "AutogradCPU")
        yield


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Dropout.cpp `is_fused_kernel_acceptable`: CUDA keeps a 1-byte mask, the CPU its noise."""
    if not train or p == 0:
        return input
    out: Tensor = torch.native_dropout(input, p, True)[0]
    return out


def _softmax(kernel: Callable[[Tensor, int, bool], Tensor]) -> Callable[..., Tensor]:
    """SoftMax.cpp `softmax`, `log_softmax`: CUDA's kernels convert a half input to float32 as they read it; any other
    conversion is a copy before."""

    def run(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        if input.dtype is torch.float16 and dtype is torch.float32:
            return kernel(input, dim, True)
        return kernel(input if dtype is None else input.to(dtype), dim, False)

    return run
