"""The branches that libraries take on numbers, which no kernel computes here: answered as the run's data would.

Python runs this file at its start where its folder is on PYTHONPATH.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: Whether a batch has padded samples.
PADDED = os.environ.get("NOCARD_PADDED") == "1"


def _answer(masking: ModuleType) -> None:
    """transformers 5.17 masking_utils.py: no batch is packed, and nothing is masked unless samples are padded."""
    find, all_of = masking.find_packed_sequence_indices, masking.fast_all

    def find_packed_sequence_indices(position_ids: Any) -> None:
        find(position_ids)

    def fast_all(tensor: Any) -> bool:
        all_of(tensor)
        return not PADDED

    masking.find_packed_sequence_indices, masking.fast_all = find_packed_sequence_indices, fast_all


def _head(kernels: ModuleType) -> None:
    """trl 1.16 kernels/chunked_logprob.py: the card has Triton, and every token that is not padded has a label."""
    import torch

    from vramplan.measure.fused_head import IdleKernel, TritonStandIn

    kernels._use_triton = lambda device: True  # type: ignore[attr-defined]
    kernels._forward_kernel = kernels._backward_kernel = IdleKernel()  # type: ignore[attr-defined]
    kernels.triton = TritonStandIn  # type: ignore[attr-defined]
    get, step, argwhere = torch.Tensor.__getitem__, torch.amp.GradScaler.step, torch.argwhere

    def getitem(tensor: Any, index: Any) -> Any:
        if not (isinstance(index, torch.Tensor) and index.dtype is torch.bool and index.is_cuda):
            return get(tensor, index)
        before = os.environ.get("NOCARD_COUNT")
        os.environ["NOCARD_COUNT"] = str(index.numel() - PADDED)
        picked = get(tensor, index)
        if before is not None and not picked.requires_grad:  # backward counts what has a gradient once more
            os.environ["NOCARD_COUNT"] = before
        return picked

    def stepped(*args: Any, **kwargs: Any) -> Any:
        os.environ.pop("NOCARD_COUNT", None)  # what it reads is whether a gradient has overflown
        return step(*args, **kwargs)

    def outliers(*args: Any, **kwargs: Any) -> Any:
        count = os.environ.pop("NOCARD_COUNT", None)  # bitsandbytes' 8-bit layers find none
        try:
            return argwhere(*args, **kwargs)
        finally:
            if count is not None:
                os.environ["NOCARD_COUNT"] = count

    torch.argwhere = outliers
    torch.Tensor.__getitem__, torch.amp.GradScaler.step = getitem, stepped  # type: ignore[method-assign]


def _kernels(module: ModuleType) -> None:
    """triton runtime/jit.py and runtime/autotuner.py: a kernel changes what it is given, and makes nothing."""

    def run(*args: Any, **kwargs: Any) -> None:
        pass

    for kernel in ("JITFunction", "Autotuner"):
        if hasattr(module, kernel):
            getattr(module, kernel).run = run


#: What is changed, by module.
_CHANGES = {
    "transformers.masking_utils": _answer,
    "trl.kernels.chunked_logprob": _head,
    "triton.runtime.jit": _kernels,
    "triton.runtime.autotuner": _kernels,
}


class _AfterLoading:
    """Finds the modules, and changes them once they are loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, whose loader runs and answers."""
        if name not in _CHANGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                _CHANGES[name](module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _AfterLoading)  # type: ignore[arg-type]
