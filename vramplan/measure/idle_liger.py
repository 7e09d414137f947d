"""Liger's own code as it runs on CUDA, on fake tensors: its Triton kernels change what they are given, and make
nothing."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch

from vramplan.catalog.gpus import Gpu
from vramplan.errors import CannotRun
from vramplan.measure.tracker import Opener

aten = torch.ops.aten

#: What asks where its tensors are, and takes other paths, or buffers of other sizes, on a card (liger-kernel 0.8.5).
_ASKING = {
    "liger_kernel.ops.rms_norm": ("rms_norm_backward",),
    "liger_kernel.ops.fused_linear_cross_entropy": ("_can_use_mm_out", "fused_linear_cross_entropy_forward"),
}


@contextmanager
def idle_liger(gpu: Gpu, modeling: ModuleType) -> Iterator[None]:
    """Inside, Liger runs without a card, and takes the paths that it takes on one.

    What it patches into `modeling`, the module of the model's code, is the module's own again afterwards.
    """
    try:
        jit, tuner = import_module("triton.runtime.jit"), import_module("triton.runtime.autotuner")
        asking = {import_module(module): names for module, names in _ASKING.items()}
    except ImportError as error:
        raise CannotRun(
            "tracing Liger's kernels needs the packages liger-kernel and triton",
            hint="pip install 'vramplan[measure,liger]', or use --engine analytic",
        ) from error
    replaced: list[tuple[Any, str, Any]] = [
        (jit.JITFunction, "run", _nothing),
        (tuner.Autotuner, "run", _nothing),
        (torch.cuda, "get_device_capability", lambda device=None: gpu.capability),
        (torch.cuda, "get_device_properties", lambda device=None: _properties(gpu)),
        *((module, name, made) for module, names in asking.items() for name, made in _on_card(module, names)),
    ]
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(vars(modeling)))
        for owner, name, value in replaced:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _properties(gpu: Gpu) -> SimpleNamespace:
    return SimpleNamespace(multi_processor_count=gpu.multiprocessors)


def _on_card(module: ModuleType, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Functions of a module with the CPU, where fake tensors are, in CUDA's place."""
    around = dict(vars(module))
    for name in names:
        source = inspect.getsource(around[name]).replace('"cuda"', '"cpu"')
        exec(compile(source, str(module.__file__), "exec"), around)
        yield name, around[name]


def _unequal(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the loss's gradient is 1: what is asked decides what a kernel multiplies by, not what is made."""
    return False


#: What runs these operations instead of their registered fake versions.
LIGER_OPENERS: dict[Any, Opener] = {aten.equal.default: _unequal}
