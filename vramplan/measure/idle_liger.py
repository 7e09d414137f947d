"""Liger's own code as it runs on CUDA, on fake tensors: its Triton kernels change what they are given, and make
nothing."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch

from vramplan.catalog.gpus import Gpu
from vramplan.errors import CannotRun
from vramplan.measure.replacing import Replacement, replacing

#: What asks where its tensors are, and takes other paths, or buffers of other sizes, on a card (liger-kernel 0.8.5);
#: of a module those first that the others call.
_ASKING = {
    "liger_kernel.ops.rms_norm": ("rms_norm_backward",),
    "liger_kernel.ops.fused_linear_cross_entropy": ("_can_use_mm_out", "fused_linear_cross_entropy_forward"),
}


@contextmanager
def idle_liger(gpu: Gpu, modeling: ModuleType) -> Iterator[None]:
    """Inside, Liger runs without a card, and takes the paths that it takes on one.

    What it patches into `modeling`, the module of the model's code, is the module's own again afterwards.
    """
    properties = SimpleNamespace(multi_processor_count=gpu.multiprocessors)
    replaced = [
        Replacement(import_module("triton.runtime.jit").JITFunction, "run", _nothing),
        Replacement(import_module("triton.runtime.autotuner").Autotuner, "run", _nothing),
        Replacement(torch.cuda, "get_device_capability", lambda device=None: gpu.capability),
        Replacement(torch.cuda, "get_device_properties", lambda device=None: properties),
        # Whether the loss's gradient is 1 decides what a kernel multiplies by, and not what is made.
        Replacement(torch, "equal", lambda one, other: False),
    ]
    for module, names in _ASKING.items():
        replaced += _on_card(import_module(module), names)
    with mock.patch.dict(vars(modeling)), replacing(replaced):
        yield


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _on_card(module: ModuleType, names: Iterable[str]) -> Iterator[Replacement]:
    """Functions of a module with the CPU, where fake tensors are, in CUDA's place."""
    around = dict(vars(module))
    for name in names:
        source = inspect.getsource(around[name])
        if '"cuda"' not in source:
            raise CannotRun(
                f"{module.__name__}.{name} does not ask for a card as it did in liger-kernel 0.8.5",
                hint="pip install liger-kernel==0.8.5, or use --engine analytic",
            )
        exec(compile(source.replace('"cuda"', '"cpu"'), str(module.__file__), "exec"), around)
        yield Replacement(module, name, around[name])
