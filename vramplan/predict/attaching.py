"""Adapters come to the model: made in fp32 on the host, moved to the base's device and dtype, cast at the end.

peft 0.21 tuners/tuners_utils.py `_move_adapter_to_device_of_base_layer`, `cast_adapter_dtype`; TRL casts once more.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vramplan.architecture import Weight
from vramplan.ledger import Component
from vramplan.predict.adapters import Trainable, adapter_tensors
from vramplan.predict.base import Group, prepared_element
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.quantization import is_quantized
from vramplan.predict.writer import Writer
from vramplan.record import Device
from vramplan.scenario import DType, QuantType, Scenario

_FP32 = DType.FLOAT32.bytes


class Attached(NamedTuple):
    """One of an adapter's matrices on the device."""

    weight: Weight
    tensor: Trainable
    element: int
    """Bytes of each of its numbers."""
    block: int


def attach(writer: Writer, groups: Sequence[Group], scenario: Scenario, device: Device) -> list[list[Attached]]:
    """Write the adapters of every group; what is left of them, group by group."""
    targets = resolve_targets(scenario.architecture, scenario.lora)
    made = [_made(writer, group, scenario, targets, device) for group in groups]
    for element in _casts(scenario):
        for group, attached in zip(groups, made, strict=True):
            with writer.repeat(group.times):
                attached[:] = [_cast(writer, one, element, scenario.lora.dtype.bytes) for one in attached]
    return made


def _casts(scenario: Scenario) -> tuple[int, ...]:
    """Bytes of a number after each cast of all adapters."""
    asked = scenario.lora.dtype.bytes
    return (_FP32, asked) if scenario.recasts_adapters else (asked,)


def _made(writer: Writer, group: Group, scenario: Scenario, targets: Targets, device: Device) -> list[Attached]:
    """A layer's two matrices are made together, then moved one by one: to a card as they are cast."""
    attached = []
    with writer.repeat(group.times):
        for weight in group.weights:
            tensors = adapter_tensors(weight, scenario.lora, targets)
            moved = _base_element(weight, scenario)
            made, asked = moved if device == "cuda" else _FP32, scenario.lora.dtype.bytes
            new = [Attached(weight, tensor, made, _alloc(writer, tensor, made, asked)) for tensor in tensors]
            attached += [_cast(writer, one, moved, asked) for one in new]
    return attached


def _cast(writer: Writer, one: Attached, element: int, asked: int) -> Attached:
    if one.element == element:
        return one
    block = _alloc(writer, one.tensor, element, asked)
    writer.free(one.block)
    return one._replace(element=element, block=block)


def _alloc(writer: Writer, tensor: Trainable, element: int, asked: int) -> int:
    """A matrix with this many bytes a number; on its way, while they are not as `asked`."""
    component = Component.ADAPTERS if element == asked else Component.WORKSPACE
    return writer.alloc(component, tensor.label, tensor.numel * element)


def _base_element(weight: Weight, scenario: Scenario) -> int:
    """Bytes of a number of the base layer's dtype: what a 4-bit one computes in; adapters of integers stay fp32."""
    if not is_quantized(weight, scenario.quant):
        return prepared_element(weight, scenario)
    return _FP32 if scenario.quant.type is QuantType.INT8 else scenario.compute_dtype.bytes
