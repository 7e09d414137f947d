"""CUDA's autocast on the CPU: what `softmax` is made of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vramplan.measure.cuda_autocast import cuda_autocast_lists


class Log(TorchDispatchMode):
    """Names of the operations that come through."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten":
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("call", [torch.softmax, torch.log_softmax])
@pytest.mark.parametrize(
    ("kind", "asked", "names", "result"),
    [
        # aten/src/ATen/native/SoftMax.cpp: a half input to fp32 is converted in the kernel, any other by a copy before
        (torch.float16, None, ["{}"], torch.float32),
        (torch.float16, torch.float32, ["{}"], torch.float32),
        (torch.float16, torch.float16, ["{}"], torch.float16),
        (torch.bfloat16, None, ["_to_copy", "{}"], torch.float32),
        (torch.float32, None, ["{}"], torch.float32),
    ],
)
def test_softmax_under_autocast(call: Callable[..., Any], kind: Any, asked: Any, names: list[str], result: Any) -> None:
    with FakeTensorMode(), cuda_autocast_lists(), torch.autocast("cpu", dtype=torch.float16), Log() as log:
        x = torch.empty(4, 8, dtype=kind)
        log.names.clear()
        out = call(x, -1, dtype=asked)
    assert out.dtype is result
    assert log.names == [name.format(f"_{call.__name__}") for name in names]
