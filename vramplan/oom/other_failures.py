"""Failures that look like an out-of-memory message, or that come instead of one: what each means, what to do."""

import re
from dataclasses import dataclass

from vramplan.allocator_settings import USUAL_VARIABLE


@dataclass(frozen=True, slots=True)
class Known:
    """A failure that people know by its text."""

    name: str
    """The word in JSON."""
    on_gpu: bool
    """Whether the GPU's memory is what ran out."""
    meaning: str
    advice: str


#: Held against each line in order; the first that a line meets names it.
_RULES: tuple[tuple[str, Known], ...] = (
    (
        r"NVML_SUCCESS == r INTERNAL ASSERT FAILED",
        Known(
            "nvml-assert",
            True,
            "PyTorch ran out of GPU memory, and failed while it asked the driver who holds it (a driver without NVML"
            " for this process: containers, Jetson, a driver that was updated without a reboot); the sizes are lost",
            "reboot after a driver update, or print torch.cuda.memory_summary() before the failing step",
        ),
    ),
    (
        r"CUBLAS_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED",
        Known(
            "cublas-alloc",
            True,
            "cuBLAS could not take memory: it asks the driver, outside PyTorch's allocator, and nothing was free",
            "leave the card some room (torch.cuda.set_per_process_memory_fraction(0.95)), or save memory as for any"
            " out-of-memory error; CUBLAS_WORKSPACE_CONFIG=:16:8 makes the workspace smaller",
        ),
    ),
    (
        r"CUDNN_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)|CUSOLVER_STATUS_ALLOC_FAILED|CUSPARSE_STATUS_ALLOC_FAILED",
        Known(
            "library-alloc",
            True,
            "a CUDA library could not take memory from the driver, outside PyTorch's allocator: nothing was free",
            "leave the card some room: torch.cuda.set_per_process_memory_fraction(0.95)",
        ),
    ),
    (
        r"Error out of memory at line \d+ in file|cudaMallocManaged.*(out of memory|failed)",
        Known(
            "bitsandbytes-alloc",
            True,
            "bitsandbytes asked the driver for memory (managed, for paged optimizer states), outside PyTorch's"
            " allocator, and got none: the card or the host's memory for its pages is full",
            "check the host's free memory too; a smaller optimizer (adamw_8bit without pages, or sgd) asks PyTorch",
        ),
    ),
    (
        r"exceed allowed memory\. \(out of memory\)",
        Known(
            "async-allocator",
            True,
            "CUDA's own asynchronous allocator (backend:cudaMallocAsync) gave up; it tells nothing of fragmentation",
            f"run once with PyTorch's native allocator (unset {USUAL_VARIABLE}) for a message that does",
        ),
    ),
    (
        r"(ncclUnhandledCudaError|NCCL).*out of memory|Cuda failure \d* ?'out of memory'",
        Known(
            "nccl-alloc",
            True,
            "NCCL could not take its buffers from the driver, outside PyTorch's allocator: nothing was free",
            "leave the card some room; NCCL_BUFFSIZE makes the buffers smaller",
        ),
    ),
    (
        # FlashAttention 3 (hopper/cuda_check.h) puts its file in brackets; Triton's kernels are Liger's and unsloth's
        r"CUDA (driver )?error( \([^)]{1,300}\))?: out of memory|Triton Error \[CUDA\]: out of memory"
        r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY",
        Known(
            "driver-out-of-memory",
            True,
            "the driver had no memory for a request outside PyTorch's allocator: a CUDA context, a kernel, or a page of"
            " an expandable segment; at the start of a run, another process holds the card",
            "look at nvidia-smi for other processes; leave the card some room",
        ),
    ),
    (
        r"(MPS backend|XPU) out of memory",
        Known(
            "other-device",
            True,
            "a device without CUDA ran out of memory; vramplan knows CUDA's allocator",
            "predict the run without --gpu and compare with what the device has",
        ),
    ),
    (
        r"DefaultCPUAllocator: (can't|not enough)|numpy\..*MemoryError|Unable to allocate .* for an array",
        Known(
            "host-memory",
            False,
            "the computer's own memory (RAM) ran out, not the GPU's",
            "close what holds it, load the model straight to the GPU (device_map={'': 0}), or read data in a stream",
        ),
    ),
    (
        r"exitcode\s*: -9\b|Signal 9 \(SIGKILL\)|oom-?kill|oom_kill event|Out of memory: Killed process"
        r"|died with <Signals\.SIGKILL|exited with code -9\b|DataLoader worker .* killed by signal: Killed"
        r"|^\s*Killed\s*$|\bKilled\s+python|^MemoryError\b",
        Known(
            "killed",
            False,
            "the system killed the process, or refused it memory; most often the computer's own (RAM) ran out, not the"
            " GPU's",
            "look at `dmesg` for 'Out of memory'; load straight to the GPU (device_map={'': 0}), use fewer DataLoader"
            " workers; paged optimizer states also live in RAM",
        ),
    ),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), known) for pattern, known in _RULES)


def recognise(line: str) -> Known | None:
    """The failure that a line of a log tells of; None for any other line."""
    for pattern, known in _COMPILED:
        if pattern.search(line):
            return known
    return None
