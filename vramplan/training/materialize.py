"""A meta model made real on a device: every parameter and buffer gets a value, quantised ones as they are made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vramplan.scenario import Scenario
from vramplan.training.meter import Meter
from vramplan.training.names import name_base

#: Makes the quantised parameter at a path of the model from its 16-bit value; a fake run brings its own.
Quantize = Callable[[nn.Module, str, Tensor], nn.Parameter]


def quantize_by_bitsandbytes(model: Any, path: str, value: Tensor) -> nn.Parameter:
    """The quantised parameter, made by the operation that `from_pretrained` runs on each tensor of a checkpoint."""
    operation = model.hf_quantizer.get_quantize_ops()
    parameter: nn.Parameter = operation.convert({path: value}, model=model)[path]
    return parameter


def materialize(
    model: Any,
    scenario: Scenario,
    device: torch.device,
    meter: Meter,
    *,
    quantize: Quantize = quantize_by_bitsandbytes,
) -> None:
    """Give every parameter and buffer of a meta model a random or initial value on `device`, in the model's order.

    Tied parameters are one object in the meta model and stay one object.
    """
    torch.manual_seed(0)
    made = _Made(model, getattr(torch, scenario.dtype), device, quantize)
    for path, module in model.named_modules():
        if made.parameters(path, module) | made.buffers(module):
            _initialise(model, module)
        name_base(module, meter, within=model, prefix=path, recurse=False)
    model.eval()  # as from_pretrained leaves it


class _Made:
    """The real parameters made so far."""

    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device, quantize: Quantize) -> None:
        self._model, self._dtype, self._device, self._quantize = model, dtype, device, quantize
        self._kept_fp32: dict[str, torch.dtype] = model._get_dtype_plan(dtype)
        self._std = getattr(model.config, "initializer_range", None) or 0.02
        self._real: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # by the meta parameter's id; it stays alive

    def parameters(self, path: str, module: nn.Module) -> bool:
        """Make the module's own parameters real; whether any of them still needs its initial value."""
        fresh = False
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in self._real:
                full = f"{path}.{name}" if path else name
                quantized = name == "weight" and hasattr(module, "source_cls")  # set by replace_with_bnb_linear
                real = self._quantized(full, module) if quantized else self._plain(full, parameter)
                self._real[id(parameter)] = (parameter, real)
                fresh |= not quantized
            module._parameters[name] = self._real[id(parameter)][1]
        return fresh

    def buffers(self, module: nn.Module) -> bool:
        """Make the module's own buffers real, without values yet; whether there are any."""
        fresh = False
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty_like(buffer, device=self._device)
                fresh = True
        return fresh

    def _quantized(self, path: str, module: Any) -> nn.Parameter:
        shape = (module.out_features, module.in_features)
        if module.source_cls is not nn.Linear:  # Conv1D: stored [in, out]; the conversion transposes it
            shape = (shape[1], shape[0])
        value = torch.empty(shape, dtype=self._dtype, device=self._device).normal_(0.0, self._std)
        return self._quantize(self._model, path, value)

    def _plain(self, path: str, parameter: nn.Parameter) -> nn.Parameter:
        dtype = next((dtype for part, dtype in self._kept_fp32.items() if part in path), parameter.dtype)
        value = torch.empty(parameter.shape, dtype=dtype, device=self._device)
        return nn.Parameter(value, requires_grad=parameter.requires_grad)


@torch.no_grad()
def _initialise(model: Any, module: nn.Module) -> None:
    """transformers' own initial values, rotary frequencies included; a quantised layer needs only its bias filled."""
    if not hasattr(module, "source_cls"):
        model._init_weights(module)
    elif isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)
