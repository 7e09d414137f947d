"""How many parameters the built model has, and how many bits each quantised one takes: read off the real tensors."""

from math import prod
from typing import Any

from torch import Tensor, nn

from vramplan.record import Parameters
from vramplan.training.names import belongs_to_adapter, causal_model, is_linear, output_head, quant_state_tensors


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of the base model, of those the quantised ones, and the trainable ones (adapters, or all)."""
    total = quantized = trainable = 0
    for module, name, parameter in _parameters(model):
        numel = _elements(parameter)
        if not belongs_to_adapter(name):
            total += numel
            quantized += numel if name.endswith("weight") and hasattr(module, "source_cls") else 0
        trainable += numel if parameter.requires_grad else 0
    return Parameters(total, quantized, trainable)


def bits_per_parameter(model: Any) -> float:
    """Bits per element of the base model's linear layers: packed weights and block constants, no tables."""
    base = causal_model(model)
    head = output_head(base)
    size = numel = 0
    for module, name, parameter in _parameters(base):
        if name.endswith("weight") and _counts(name, module, base, head):
            numel += _elements(parameter)
            size += _packed(module, parameter)
    return 8 * size / numel if numel else 0.0


def quantized_bytes(model: nn.Module) -> int:
    """Bytes of the quantised weights with their block constants, no tables."""
    return sum(
        _packed(module, parameter)
        for module, name, parameter in _parameters(model)
        if name.endswith("weight") and hasattr(module, "source_cls")
    )


def _packed(module: Any, parameter: Tensor) -> int:
    constants = quant_state_tensors(module, parameter)
    return _bytes(parameter) + sum(_bytes(tensor) for label, tensor in constants if label.endswith(("absmax", "SCB")))


def _counts(name: str, module: Any, base: Any, head: Any) -> bool:
    return is_linear(base, module) and module is not head and not belongs_to_adapter(name)


def _parameters(model: nn.Module) -> list[tuple[Any, str, Tensor]]:
    """(module, parameter path, parameter), tied parameters once."""
    found: dict[int, tuple[Any, str, Tensor]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            found.setdefault(id(parameter), (module, name, parameter))
    return list(found.values())


def _elements(parameter: Tensor) -> int:
    """Elements of the matrix that a 4-bit parameter stands for; of any other parameter its own."""
    state = getattr(parameter, "quant_state", None)
    return prod(state.shape) if state is not None else parameter.numel()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
