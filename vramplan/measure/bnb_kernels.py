"""bitsandbytes' own Python kernels, run in the open: what an operation takes inside itself becomes visible.

The kernels (the dequantised matrix of `gemm_4bit`, casts, `contiguous` copies, the choice between fused and
dequantising code) are Python around calls of a C library. Dispatched as operations they run unseen, and their
registered fake versions make only the outputs. A private copy of that Python, called directly, shows every tensor; on
fake tensors its C library does nothing.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import cache, partial
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from vramplan.catalog.gpus import Gpu
from vramplan.measure.tracker import Opener

Kernel = Callable[..., Any]


class _Silent:
    """A C library whose every function does nothing and reports success."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *args: 0


class _NoHandles:
    """cuBLAS's handles where there is no card: bitsandbytes' `CUBLAS_Context` asks the driver."""

    @classmethod
    def get_instance(cls) -> "_NoHandles":
        """As the library spells it."""
        return cls()

    def get_context(self, device: torch.device) -> None:
        """No handle."""


def cpu_opener() -> Opener:
    """Runs bitsandbytes' operations by their CPU kernels, for real."""
    found: dict[str, Kernel] = {}
    _execute("bitsandbytes.backends.default.ops", found)
    _execute("bitsandbytes.backends.cpu.ops", found)
    return _opener(found)


def cuda_opener() -> Opener:
    """Runs bitsandbytes' operations by their CUDA kernels, for real, so that every tensor inside is seen."""
    found: dict[str, Kernel] = {}
    _execute("bitsandbytes.backends.default.ops", found)
    module = _execute("bitsandbytes.backends.cuda.ops", found)
    module.__dict__["_get_raw_stream"] = torch._C._cuda_getCurrentRawStream
    return _opener(found)


def fake_opener(gpu: Gpu | None) -> Opener:
    """Runs bitsandbytes' operations on fake tensors by their kernels of a card, or of the CPU when there is none.

    The library caches code tables for the whole process; the copies keep their own, which are fake.
    """
    from bitsandbytes.functional import get_4bit_type

    found: dict[str, Kernel] = {}
    with mock.patch("bitsandbytes.cextension.lib", _Silent()):
        modules = [_execute("bitsandbytes.backends.default.ops", found)]
        modules.append(_execute(f"bitsandbytes.backends.{'cpu' if gpu is None else 'cuda'}.ops", found))
    for module in modules:
        module.__dict__.update(
            get_ptr=lambda tensor: None,
            _cuda_device_of=lambda tensor: contextlib.nullcontext(),
            _get_4bit_code=cache(get_4bit_type),
            _get_raw_stream=lambda index: 0,
            CUBLAS_Context=_NoHandles,
        )
    if gpu is not None:
        modules[-1].__dict__["_gpu_dispatch_props"] = lambda index: (gpu.multiprocessors, *gpu.capability)
    return _opener(found)


def _int8_vectorwise_dequant(codes: Tensor, constants: Tensor) -> Tensor:
    """bitsandbytes 0.50 _ops.py, where this one kernel stands beside its registration, for every device."""
    return codes * constants.view(-1, 1) * 7.874015718698502e-3


def _opener(table: dict[str, Kernel]) -> Opener:
    table = {"int8_vectorwise_dequant": _int8_vectorwise_dequant, **table}
    _note_autocast()

    def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.partition("::")[2]
        overload = func._schema.overload_name
        with _AUTOCAST.get(contextlib.nullcontext()):
            return table[f"{name}.{overload}" if overload else name](*args, **kwargs)

    return run


#: Autocast as it is where the product was called; a dispatch mode sees none.
_AUTOCAST: ContextVar[AbstractContextManager[Any]] = ContextVar("autocast")


@cache  # which keeps the library: what goes is registered no longer
def _note_autocast() -> torch.library.Library:
    """From now on, in this process, a product notes autocast on its way to the kernel, whose `F.linear` it casts."""
    library = torch.library.Library("bitsandbytes", "IMPL")  # type: ignore[no-untyped-call]
    for device in ("cpu", "cuda"):
        key = f"Autocast{device.upper()}"
        noting = partial(_noting, device, getattr(torch._C.DispatchKey, key))
        library.impl("gemm_4bit", noting, key, with_keyset=True)  # type: ignore[no-untyped-call]
    return library


def _noting(device: str, key: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
    """The product as it goes on without this function: autocast stays on for what its kernel calls."""
    noted = _AUTOCAST.set(torch.autocast(device, dtype=torch.get_autocast_dtype(device)))
    try:
        return torch.ops.bitsandbytes.gemm_4bit.default.redispatch(keys.remove(key), *args, **kwargs)
    finally:
        _AUTOCAST.reset(noted)


def _execute(name: str, found: dict[str, Kernel]) -> ModuleType:
    """A private copy of a bitsandbytes module whose kernels are collected instead of registered."""
    import bitsandbytes  # noqa: F401  (the package of the copy)

    def collect(operation: str, kind: str) -> Callable[[Kernel], Kernel]:
        def decorate(kernel: Kernel) -> Kernel:
            found[operation.removeprefix("bitsandbytes::")] = kernel
            return kernel

        return decorate

    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The CPU module looks for an optional package of kernels and warns when it is not there.
    bnb_log = logging.getLogger(name)
    with (
        mock.patch.object(bnb_log, "disabled", True),
        mock.patch("bitsandbytes._ops.register_kernel", collect),
        mock.patch.object(torch._C, "_cuda_getCurrentRawStream", None, create=True),
    ):
        spec.loader.exec_module(module)
    return module
