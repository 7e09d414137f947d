"""The last inch: what only a machine with a CUDA GPU can do. Everything that calls it runs on any machine."""

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from vramplan.errors import CannotRun, first_line
from vramplan.measure import nvml
from vramplan.measure.bnb_kernels import cuda_opener
from vramplan.measure.cuda import Allocator, CudaAllocator
from vramplan.measure.cuda_history import MAX_ENTRIES
from vramplan.measure.cuda_kernels import temporaries
from vramplan.measure.cuda_tracker import CudaTracker


class Machine(Protocol):
    """What a measurement needs of the machine beyond running the steps."""

    device: torch.device
    allocator: Allocator

    def tracker(self, vocab: int) -> CudaTracker:
        """A tracker of the device's storages."""

    def stats(self) -> Mapping[str, int]:
        """`torch.cuda.memory_stats` now."""

    def start_history(self) -> None:
        """Record every request and release from now on."""

    def stop_history(self) -> Sequence[Mapping[str, Any]]:
        """What was recorded; nothing is from now on."""

    def times(self, run: Callable[[], object], steps: int) -> list[float]:
        """Milliseconds of each of `steps` runs."""

    def held(self) -> nvml.Held:
        """What the process holds on the card."""

    def drop_workspaces(self) -> None:
        """Give the matrix library's workspaces back to the allocator."""


class CudaMachine:
    """CUDA's device 0."""

    def __init__(self, memory_limit: int | None) -> None:
        """Starts CUDA. `memory_limit` caps what the allocator may reserve; CannotRun when CUDA cannot be started."""
        self._card = nvml.card()
        start_cuda()
        self.device = torch.device("cuda", 0)
        self.allocator: Allocator = CudaAllocator()
        if memory_limit is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, memory_limit / total))

    def tracker(self, vocab: int) -> CudaTracker:
        """It looks inside bitsandbytes' kernels; what torch's kernels take inside themselves it knows by rule."""
        card = torch.cuda.get_device_properties(0)
        rules = temporaries((card.major, card.minor), card.multi_processor_count)
        return CudaTracker(vocab=vocab, device="cuda", rules=rules, openers={"bitsandbytes": cuda_opener()})

    def stats(self) -> Mapping[str, int]:
        """`torch.cuda.memory_stats` now."""
        stats: Mapping[str, int] = torch.cuda.memory_stats()
        return stats

    def start_history(self) -> None:
        """Record requests and releases without their call stacks, which would cost time."""
        torch.cuda.memory._record_memory_history("all", context=None, stacks="python", max_entries=MAX_ENTRIES)

    def stop_history(self) -> Sequence[Mapping[str, Any]]:
        """The trace of the device."""
        trace: Sequence[Mapping[str, Any]] = torch.cuda.memory._snapshot()["device_traces"][0]
        torch.cuda.memory._record_memory_history(None)
        return trace

    def times(self, run: Callable[[], object], steps: int) -> list[float]:
        """By CUDA events around each run; the host waits once, after the last."""
        pairs = []
        gc.collect()
        torch.cuda.synchronize()
        for _ in range(steps):
            start, end = _event(), _event()
            start.record()
            run()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
        return [float(start.elapsed_time(end)) for start, end in pairs]

    def held(self) -> nvml.Held:
        """What the driver says the process holds."""
        torch.cuda.synchronize()
        return nvml.held(self._card.uuid, os.getpid(), self._card.used)

    def drop_workspaces(self) -> None:
        """cuBLAS's and cuBLASLt's workspaces of every handle and stream."""
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def start_cuda() -> None:
    """Start CUDA in this process, or CannotRun with the reason: a CPU build of PyTorch, a driver too old."""
    if torch.version.cuda is None:
        raise CannotRun(
            f"PyTorch {torch.__version__} is built without CUDA",
            hint="install the CUDA build of PyTorch, see pytorch.org",
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise CannotRun(
            f"PyTorch {torch.__version__} cannot start CUDA {torch.version.cuda}: {first_line(error)}",
            hint="`vramplan doctor` shows the driver and the CUDA version that it serves",
        ) from error
