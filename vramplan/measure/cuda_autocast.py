"""CUDA's autocast lists on the CPU: the operations that run in fp32 there and not here.

aten/src/ATen/autocast_mode.h (torch 2.13), AT_FORALL_FP32, AT_FORALL_FP32_SET_OPT_DTYPE. The lists of operations that
run in 16 bits agree for everything that a language model does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

#: Run in fp32: their 16-bit inputs are cast up.
_FP32 = (
    "__rpow__", "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal",
    "rsqrt", "sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm",
    "native_layer_norm", "group_norm", "cosine_similarity", "nll_loss", "nll_loss_nd", "kl_div", "l1_loss",
    "mse_loss", "logsumexp",
)  # fmt: skip
#: Produce fp32 unless told otherwise: the `dtype` argument is set.
_FP32_OUTPUT = (
    "softmax.int", "log_softmax.int", "prod", "cumprod", "cumsum", "sum", "sum.dim_IntList", "linalg_vector_norm",
)  # fmt: skip

#: What is kept out of dispatch where autocast has done its part.
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


@contextmanager
def cuda_autocast_lists() -> Iterator[None]:
    """Inside, autocast on the CPU treats operations as on CUDA."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        for name in _FP32:
            _register(library, name, _in_fp32)
        for name in _FP32_OUTPUT:
            _register(library, name, _to_fp32)
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _register(library: torch.library.Library, name: str, policy: Callable[[Any], Callable[..., Any]]) -> None:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
    if operation is None or torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCPU"):
        return
    library.impl(name, policy(operation), "AutocastCPU")  # type: ignore[no-untyped-call]


def _in_fp32(operation: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return operation(*tree_map_only(Tensor, _upcast, args), **tree_map_only(Tensor, _upcast, kwargs))

    return run


def _to_fp32(operation: Any) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        first = args[0]
        asked = any(isinstance(given, torch.dtype) for given in (*args, *kwargs.values()))
        if not asked and first.dtype in (torch.float16, torch.bfloat16):
            kwargs["dtype"] = torch.float32
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return operation(*args, **kwargs)

    return run


def _upcast(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
