"""What CUDA does differently from the CPU that fake tensors are placed on: each difference a named rule with its
origin.

Two kinds: operations that exist in another form on CUDA (`cuda_choices`), and memory that libraries keep
(`CublasWorkspaces`). What kernels take inside themselves is in cuda_kernels.py. Sources are torch 2.13 and bitsandbytes
0.50.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import peft
import torch
from accelerate.utils import memory
from torch import Tensor

from vramplan.catalog.gpus import Gpu
from vramplan.measure.cuda_attention import sdpa_as_on_cuda
from vramplan.measure.cuda_autocast import cuda_autocast_lists
from vramplan.measure.cuda_composites import cuda_composites
from vramplan.measure.flash_package import flash_package
from vramplan.measure.replacing import Replacement, replacing
from vramplan.measure.tracker import Tracker
from vramplan.predict.optimizer import MIN_PAGED_SIZE
from vramplan.predict.overheads import lt_workspace, workspaces
from vramplan.predict.writer import Piece
from vramplan.torch_release import shares_workspaces

aten = torch.ops.aten


class CublasWorkspaces:
    """What each thread's first matrix product takes, and keeps; where the card's own were measured, as large as those.

    aten/src/ATen/cuda/CublasHandlePool.cpp (2.13) `getChosenWorkspaceSize`: cuBLASLt, which computes products with a
    bias, shares it, up to 2.11 it has one of its own. Autograd runs CUDA's backward in a thread of its own.
    """

    PRODUCTS = (
        *(aten.mm.default, aten.mm.out, aten.addmm.default, aten.bmm.default),
        *(aten.baddbmm.default, aten.linear.default),
    )

    def __init__(self, gpu: Gpu, release: str) -> None:
        self._pieces = dict(zip(("main", "backward"), workspaces(gpu, release), strict=True))
        self._shared = shares_workspaces(release)
        self._taken: set[Piece] = set()

    def after(self, tracker: Tracker, func: Any, args: tuple[Any, ...]) -> None:
        """Called once a matrix product has its output, which exists before the library is called."""
        thread = "main" if torch._C._current_graph_task_id() == -1 else "backward"
        self._take(tracker, self._pieces[thread])
        biased = func is aten.addmm.default or (func is aten.linear.default and len(args) > 2 and args[2] is not None)
        if biased and not self._shared:
            self._take(tracker, lt_workspace(thread))

    def _take(self, tracker: Tracker, piece: Piece) -> None:
        if piece not in self._taken:
            self._taken.add(piece)
            tracker.claim(piece.bytes, piece.label)


@contextmanager
def cuda_choices(gpu: Gpu, tracker: Tracker) -> Iterator[None]:
    """Inside, the libraries take the paths that they take on the card."""
    from bitsandbytes.autograd import _functions
    from bitsandbytes.optim.ademamix import AdEMAMix
    from bitsandbytes.optim.optimizer import Optimizer8bit

    with ExitStack() as stack:
        stack.enter_context(sdpa_as_on_cuda(gpu, tracker))
        stack.enter_context(flash_package(tracker))
        stack.enter_context(cuda_autocast_lists())
        stack.enter_context(cuda_composites())
        replaced = (
            # bitsandbytes/autograd/_functions.py `matmul`: the dequantising int8 function is for cpu and xpu.
            Replacement(_functions, "MatMul8bitFp", _functions.MatMul8bitLt),
            # bitsandbytes/optim/optimizer.py `get_state_buffer`: large states of paged optimizers are managed memory.
            Replacement(Optimizer8bit, "get_state_buffer", _state_buffer(tracker)),
            Replacement(AdEMAMix, "_get_state_double_buffer", _state_buffer(tracker, buffers=2)),
            # bitsandbytes/optim/optimizer.py `init_state`: tables are made on the host, those of the states moved.
            Replacement(Optimizer8bit, "fill_qmap", _tables(tracker)),
            # peft 0.21 utils/other.py: the cache is emptied after the upcast when there is a GPU.
            Replacement(peft, "prepare_model_for_kbit_training", _prepare(tracker)),
            # accelerate 1.15 utils/memory.py: on a card it gives the cached segments back.
            Replacement(memory, "clear_device_cache", lambda garbage_collection: tracker.empty_cache()),
            # torch.is_autocast_enabled() asks about CUDA; peft's layers convert nothing themselves where it says yes.
            Replacement(torch, "is_autocast_enabled", _autocast_enabled),
            # torch/utils/_foreach_utils.py: the multi-tensor code of optimizers and clipping is for these devices.
            Replacement(torch.utils._foreach_utils, "_get_foreach_kernels_supported_devices", lambda: ["cpu"]),
            Replacement(torch.utils._foreach_utils, "_get_fused_kernels_supported_devices", lambda: ["cpu"]),
        )
        stack.enter_context(replacing(replaced))
        yield


_torch_is_autocast_enabled = torch.is_autocast_enabled


def _autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether the autocast that stands for the card's is on, where no device is named."""
    return _torch_is_autocast_enabled(device_type)


def _prepare(tracker: Tracker) -> Any:
    original = peft.prepare_model_for_kbit_training

    def run(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        tracker.empty_cache()
        return model

    return run


def _tables(tracker: Tracker) -> Any:
    from bitsandbytes.optim.optimizer import Optimizer2State, Optimizer8bit

    original = Optimizer8bit.fill_qmap

    def fill(self: Any) -> None:
        with tracker.elsewhere():
            original(self)
        for name in ("dynamic", "udynamic") if isinstance(self, Optimizer2State) else ("dynamic",):
            self.name2qmap[name] = self.name2qmap[name].clone()

    return fill


def _state_buffer(tracker: Tracker, *, buffers: int = 1) -> Any:
    """`get_state_buffer` on CUDA: from 100,000 elements on managed memory, which torch's allocator does not hold.

    AdEMAMix has two `buffers` of the parameter's size in one tensor.
    """

    def make(self: Any, parameter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        shape = parameter.shape if buffers == 1 else (buffers, *parameter.shape)
        if not self.is_paged or prod(parameter.shape) < MIN_PAGED_SIZE:
            return torch.zeros(shape, dtype=dtype)
        with tracker.elsewhere():
            return torch.zeros(shape, dtype=dtype)

    return make
