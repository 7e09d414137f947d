"""Composites as CUDA makes them: what `softmax` and `dropout` are made of, under autocast and without."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vramplan.measure.cuda_autocast import cuda_autocast_lists
from vramplan.measure.cuda_composites import cuda_composites


class Log(TorchDispatchMode):
    """Names of the operations that come through, but for `detach`: a view that autograd keeps of a result."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten" and func.overloadpacket.__name__ != "detach":
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


FUNCTIONS = {
    "softmax": (torch.softmax, "_softmax"),
    "functional": (torch.nn.functional.softmax, "_softmax"),
    "method": (torch.Tensor.softmax, "_softmax"),
    "log": (torch.log_softmax, "_log_softmax"),
}
HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(
    ("autocast", "kind", "asked", "copies", "result"),
    [
        # SoftMax.cpp: a half input to fp32 is converted in the kernel, any other by a copy before
        (True, HALF, None, 0, FULL),
        (True, HALF, FULL, 0, FULL),
        (True, HALF, HALF, 0, HALF),
        (True, BRAIN, None, 1, FULL),
        (True, FULL, None, 0, FULL),
        (False, HALF, None, 0, HALF),
        (False, HALF, FULL, 0, FULL),
        (False, BRAIN, FULL, 1, FULL),
        (False, FULL, HALF, 1, HALF),
    ],
)
def test_softmax(function: str, trained: bool, autocast: bool, kind: Any, asked: Any, copies: int, result: Any) -> None:
    call, kernel = FUNCTIONS[function]
    with FakeTensorMode(), cuda_autocast_lists(), cuda_composites(), Log() as log:
        x = torch.empty(4, 8, dtype=kind, requires_grad=trained)
        log.names.clear()
        with torch.autocast("cpu", dtype=HALF, enabled=autocast), torch.set_grad_enabled(trained):
            out = call(x, -1, dtype=asked)
    assert (out.dtype, out.requires_grad) == (result, trained)
    assert log.names == ["_to_copy"] * copies + [kernel]


@pytest.mark.parametrize(("training", "names"), [(True, ["native_dropout"]), (False, [])])
def test_dropout_keeps_a_mask_of_bytes(training: bool, names: list[str]) -> None:
    with FakeTensorMode(), cuda_composites(), Log() as log:
        x = torch.empty(4, 8, dtype=HALF, requires_grad=True)
        log.names.clear()
        torch.nn.functional.dropout(x, 0.1, training)
    assert log.names == names
