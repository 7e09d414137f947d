"""A model's parameters as fake tensors: quantised by bitsandbytes' own functions, loaded in from_pretrained's order."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import dot_natural_key
from transformers.modeling_utils import get_total_byte_count
from transformers.pytorch_utils import Conv1D

from vramplan.scenario import Scenario
from vramplan.training.meter import Meter
from vramplan.training.names import name_base

#: What `Params4bit` carries, read by `Linear4bit` and peft (bitsandbytes 0.50 nn/modules.py).
_FOUR_BIT = ("blocksize", "compress_statistics", "quant_type", "quant_storage", "module")


def quantize_fake(model: Any, path: str, value: Tensor) -> nn.Parameter:
    """The quantised parameter at `path` from its fake 16-bit `value`, in place of `build.quantize_by_bitsandbytes`.

    `Params4bit` and `Int8Params` cannot be made of fake tensors (`Tensor._make_subclass` refuses a tensor subclass),
    so a plain parameter carries their attributes; the arithmetic is `_quantize` of each, with the same tensors in
    flight.
    """
    owner, _, _ = path.rpartition(".")
    module = model.get_submodule(owner)
    if issubclass(module.source_cls, Conv1D):
        value = value.T
    old = module.weight
    return int8(old, value) if hasattr(old, "has_fp16_weights") else four_bit(module, old, value)


def four_bit(module: Any, old: Any, value: Tensor) -> nn.Parameter:
    """The 4-bit parameter of `module` from its fake value, with the settings of the `old` one."""
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        value.contiguous(),
        blocksize=old.blocksize,
        compress_statistics=old.compress_statistics,
        quant_type=old.quant_type,
        # The bytes are the same however they are viewed; as uint8, no preparation takes them for 16-bit weights.
    )
    parameter: Any = nn.Parameter(packed, requires_grad=False)
    for name in _FOUR_BIT:
        setattr(parameter, name, getattr(old, name))
    parameter.quant_state = module.quant_state = state
    parameter.bnb_quantized = True
    module._is_hf_initialized = True
    return parameter  # type: ignore[no-any-return]


def int8(old: Any, value: Tensor) -> nn.Parameter:
    """The 8-bit parameter from its fake value, with the settings of the `old` one."""
    from bitsandbytes.functional import int8_vectorwise_quant

    half = value.contiguous().to(dtype=torch.float16)
    codes, constants, _ = int8_vectorwise_quant(half)
    parameter: Any = nn.Parameter(codes, requires_grad=False)
    parameter.CB, parameter.SCB, parameter.has_fp16_weights = parameter.data, constants, old.has_fp16_weights
    return parameter  # type: ignore[no-any-return]


def load_fake(model: Any, scenario: Scenario, device: torch.device, meter: Meter, *, capacity: int) -> None:
    """Give every parameter and buffer a fake value in the order and way of `from_pretrained` (transformers 5.17).

    core_model_loading.py `convert_and_load_state_dict_in_model`: tensors arrive sorted by name, one at a time when they
    are quantised on arrival; buffers that are not saved come last. `capacity` is the card's, 0 when there is none:
    only on a card does `caching_allocator_warmup` take and free one block of about the model's size first.
    """
    if capacity:
        _warm_up(model, capacity)
    kept_fp32 = model._get_dtype_plan(getattr(torch, scenario.dtype))
    for path in sorted(model.state_dict(), key=dot_natural_key):
        if path not in model.all_tied_weights_keys:
            _arrive(model, path, getattr(torch, scenario.dtype), kept_fp32, device, meter)
    model.tie_weights()
    for prefix, module in model.named_modules():
        missing = {name: buffer for name, buffer in module._buffers.items() if buffer is not None and buffer.is_meta}
        for name, buffer in missing.items():
            module._buffers[name] = torch.empty_like(buffer, device=device)
        if missing:
            model._init_weights(module)
            name_base(module, meter, within=model, prefix=prefix, recurse=False)
    model.eval()


def _warm_up(model: Any, capacity: int) -> None:
    """modeling_utils.py `caching_allocator_warmup`: never more than the card less 1.2 GiB."""
    places = dict.fromkeys(model.state_dict(), "cuda")
    (size,) = get_total_byte_count(model, places, getattr(model, "hf_quantizer", None)).values()
    torch.empty(int(min(size, capacity - 1.2 * 1024**3) // 2), dtype=torch.float16)


def _arrive(
    model: Any, path: str, dtype: torch.dtype, kept_fp32: dict[str, torch.dtype], device: torch.device, meter: Meter
) -> None:
    """One tensor of the checkpoint on the device, quantised if its module is."""
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    old = model.get_parameter_or_buffer(path)
    packed = name == "weight" and hasattr(module, "source_cls")
    if name in module._buffers:
        module._buffers[name] = torch.empty_like(old, device=device)
    elif packed:
        shape = (module.out_features, module.in_features)
        shape = shape[::-1] if module.source_cls is Conv1D else shape
        module._parameters[name] = quantize_fake(model, path, torch.empty(shape, dtype=dtype, device=device))
    else:
        kind = next((dtype for part, dtype in kept_fp32.items() if part in path), old.dtype)
        value = torch.empty(old.shape, dtype=kind, device=device)
        module._parameters[name] = nn.Parameter(value, requires_grad=old.requires_grad)
    name_base(module, meter, within=model, prefix=owner, recurse=False)
