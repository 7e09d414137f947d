"""A model's quantised parameters as fake tensors, made by bitsandbytes' own functions."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

#: What `Params4bit` carries, read by `Linear4bit` and peft (bitsandbytes 0.50 nn/modules.py).
_FOUR_BIT = ("blocksize", "compress_statistics", "quant_type", "quant_storage", "module")


def quantize_fake(model: Any, path: str, value: Tensor, *, card: bool) -> nn.Parameter:
    """The quantised parameter at `path` from its fake 16-bit `value`.

    It stands in for `materialize.quantize_by_bitsandbytes`. `card`: the fake tensors are a GPU's, which has a host
    beside it.

    `Params4bit` and `Int8Params` cannot be made of fake tensors (`Tensor._make_subclass` refuses a tensor subclass),
    so a plain parameter carries their attributes; the arithmetic is `_quantize` of each, with the same tensors in
    flight.
    """
    owner, _, _ = path.rpartition(".")
    module = model.get_submodule(owner)
    if issubclass(module.source_cls, Conv1D):
        value = value.T
    old = module.weight
    return int8(old, value, card=card) if hasattr(old, "has_fp16_weights") else four_bit(module, old, value)


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


def int8(old: Any, value: Tensor, *, card: bool) -> nn.Parameter:
    """The 8-bit parameter from its fake value, with the settings of the `old` one.

    To a card the value comes by way of the host, which lays a transposed one out anew, so that its float16 is another
    tensor even of what is float16, and the only one (transformers 5.17 integrations/bitsandbytes.py
    `Bnb8bitQuantize.convert`).
    """
    from bitsandbytes.functional import int8_vectorwise_quant

    value = value if card else value.contiguous()
    half = value.to(dtype=torch.float16, copy=card, memory_format=torch.contiguous_format)
    codes, constants, _ = int8_vectorwise_quant(half)
    parameter: Any = nn.Parameter(codes, requires_grad=False)
    parameter.CB, parameter.SCB, parameter.has_fp16_weights = parameter.data, constants, old.has_fp16_weights
    return parameter  # type: ignore[no-any-return]
