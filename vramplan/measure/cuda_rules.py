"""What CUDA does differently from the CPU that fake tensors are placed on: each difference a named rule with its
origin.

Three kinds: memory that a kernel takes inside itself (`TEMPORARIES`), operations that exist in another form on CUDA
(`cuda_choices`), and memory that libraries keep (`CublasWorkspaces`). Sources are torch 2.13 and bitsandbytes 0.50.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any
from unittest import mock

import peft
import torch
from torch import Tensor

from vramplan.catalog.gpus import Gpu
from vramplan.measure.cuda_attention import sdpa_as_on_cuda
from vramplan.measure.cuda_autocast import cuda_autocast_lists
from vramplan.measure.flash_package import flash_package
from vramplan.measure.tracker import Rule, Temporary, Tracker
from vramplan.predict.overheads import workspaces

aten = torch.ops.aten


def _softmax_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """aten/src/ATen/native/cuda/SoftMax.cu `softmax_backward_cuda_out`: `Tensor tmp = grad * output`."""
    grad, output = args[0], args[1]
    kind = torch.promote_types(grad.dtype, output.dtype)
    return (Temporary(grad.numel() * kind.itemsize, "softmax gradient times output"),)


def _flash_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """flash_attn/flash_api.cpp `mha_bwd`: row sums and an accumulator of the query's gradient in fp32, padded to the
    kernel's tiles; with grouped queries the gradients of key and value per query head."""
    _, query, key, *_ = args
    batch, heads, rows, dim = query.shape
    padded_rows = _round_up(rows, 128)
    padded_dim = _round_up(dim, 32 if dim <= 128 else 64)
    made = [
        Temporary(batch * heads * padded_rows * 4, "flash row sums"),
        Temporary(batch * heads * padded_rows * padded_dim * 4, "flash query gradient accumulator"),
    ]
    if key.shape[1] != heads:
        expanded = batch * heads * key.shape[2] * dim * key.element_size()
        made += [Temporary(expanded, f"{name} gradient per query head") for name in ("key", "value")]
    return tuple(made)


def _samples_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """flash_attn/flash_api.cpp `mha_varlen_bwd`: the same, with room for 128 more rows per sample instead of tiles."""
    _, query, key, _, _, _, offsets, *_ = args
    tokens, heads, dim = query.shape
    rows = tokens + 128 * (offsets.shape[0] - 1)
    made = [
        Temporary(heads * rows * 4, "flash row sums"),
        Temporary(heads * rows * _round_up(dim, 32 if dim <= 128 else 64) * 4, "flash query gradient accumulator"),
    ]
    if key.shape[1] != heads:
        expanded = key.shape[0] * heads * dim * key.element_size()
        made += [Temporary(expanded, f"{name} gradient per query head") for name in ("key", "value")]
    return tuple(made)


def _efficient_backward(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Temporary, ...]:
    """attention_backward.cu `_efficient_attention_backward`: `delta`, and a workspace of fp32 accumulators.

    In 16 bits the query's gradient is accumulated in fp32; in fp32 outputs are accumulated in place, but delta is
    computed outside the kernel as `(grad_out * out).sum(-1)`, whose product exists in full.
    """
    grad, query, key, value, *_ = args
    batch, heads, rows, dim = query.shape
    made = [Temporary(batch * heads * rows * 4, "delta")]
    if query.dtype is torch.float32:
        return (Temporary(grad.numel() * 4, "gradient times output"), *made)
    padded = _round_up(rows, 64) * _round_up(dim, 64)
    if dim > 64:  # kernel_backward.h: the key's and value's accumulators do not fit into registers
        columns = _round_up(key.shape[2], 64)
        padded += columns * (_round_up(dim, 64) + _round_up(value.shape[3], 64))
    return (*made, Temporary(batch * heads * padded * 4, "fp32 gradient accumulators"))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


#: What a kernel takes inside itself and gives back before it returns.
TEMPORARIES: dict[Any, Rule] = {
    aten._softmax_backward_data.default: _softmax_backward,
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._flash_attention_backward.default: _samples_backward,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
}


class CublasWorkspaces:
    """aten/src/ATen/cuda/CUDABlas workspaces: each thread's first matrix product takes one and keeps it.

    CublasHandlePool.cpp `getChosenWorkspaceSize`: `:4096:2:16:8` KiB, that is 2 x 4096 + 8 x 16; 8 x 4096 on compute
    capability 9.0 and 10.0; where the card's own were measured, as large as those. Autograd runs CUDA's backward in a
    thread of its own.
    """

    PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)

    def __init__(self, gpu: Gpu) -> None:
        main, backward = workspaces(gpu)
        self._sizes = {False: main.bytes, True: backward.bytes}
        self._taken: set[bool] = set()

    def before(self, tracker: Tracker) -> None:
        """Called before every matrix product."""
        backward = torch._C._current_graph_task_id() != -1
        if backward not in self._taken:
            self._taken.add(backward)
            tracker.claim(self._sizes[backward], f"cuBLAS workspace of the {'backward' if backward else 'main'} thread")


@contextmanager
def cuda_choices(gpu: Gpu, tracker: Tracker) -> Iterator[None]:
    """Inside, the libraries take the paths that they take on the card."""
    from bitsandbytes.autograd import _functions
    from bitsandbytes.optim.optimizer import Optimizer8bit

    with ExitStack() as stack:
        stack.enter_context(sdpa_as_on_cuda(gpu, tracker))
        stack.enter_context(flash_package(tracker))
        stack.enter_context(cuda_autocast_lists())
        replaced: list[tuple[Any, str, Any]] = [
            # aten/src/ATen/native/Dropout.cpp `is_fused_kernel_acceptable`: CUDA keeps a 1-byte mask.
            (torch.nn.functional, "dropout", _fused_dropout),
            # aten/src/ATen/native/SoftMax.cpp: a half input with dtype=float32 is converted inside CUDA's kernel.
            (torch.nn.functional, "softmax", _softmax),
            # bitsandbytes/autograd/_functions.py `matmul`: the dequantising int8 function is for cpu and xpu.
            (_functions, "MatMul8bitFp", _functions.MatMul8bitLt),
            # bitsandbytes/optim/optimizer.py `get_state_buffer`: large states of paged optimizers are managed memory.
            (Optimizer8bit, "get_state_buffer", _state_buffer(tracker)),
            # peft 0.21 utils/other.py: the cache is emptied after the upcast when there is a GPU.
            (peft, "prepare_model_for_kbit_training", _prepare(tracker)),
            # torch.is_autocast_enabled() asks about CUDA; peft's layers convert nothing themselves where it says yes.
            (torch, "is_autocast_enabled", _autocast_enabled),
            # torch/utils/_foreach_utils.py: the multi-tensor code of optimizers and clipping is for these devices.
            (torch.utils._foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
            (torch.utils._foreach_utils, "_get_fused_kernels_supported_devices", lambda: ["cpu"]),
        ]
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


_torch_is_autocast_enabled = torch.is_autocast_enabled


def _autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether the autocast that stands for the card's is on, where no device is named."""
    return _torch_is_autocast_enabled(device_type)


def _fused_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0:
        return input
    out: Tensor = torch.native_dropout(input, p, True)[0]
    return out


_torch_softmax = torch.nn.functional.softmax


def _softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    if dim is not None and dtype is torch.float32 and input.dtype is torch.float16:
        return torch._softmax(input, dim, True)
    return _torch_softmax(input, dim, _stacklevel, dtype)


def _prepare(tracker: Tracker) -> Any:
    original = peft.prepare_model_for_kbit_training

    def run(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        tracker.empty_cache()
        return model

    return run


def _state_buffer(tracker: Tracker) -> Any:
    """`get_state_buffer` on CUDA: from 100,000 elements on managed memory, which torch's allocator does not hold."""

    def make(self: Any, parameter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        if not self.is_paged or prod(parameter.shape) < 1e5:
            return torch.zeros_like(parameter, dtype=dtype)
        with tracker.elsewhere():
            return torch.zeros_like(parameter, dtype=dtype)

    return make
