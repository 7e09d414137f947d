"""Adapters come to the model: made in fp32, moved to the base's dtype, cast to the one asked for at the end.

peft 0.21 tuners/tuners_utils.py `_move_adapter_to_device_of_base_layer`, `cast_adapter_dtype`.
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
from vramplan.scenario import DType, QuantType, Scenario

_FP32 = DType.FLOAT32.bytes


class Attached(NamedTuple):
    """One of an adapter's matrices on the device."""

    weight: Weight
    tensor: Trainable
    element: int
    """Bytes of each of its numbers."""
    block: int


def attach(writer: Writer, groups: Sequence[Group], scenario: Scenario) -> list[list[Attached]]:
    """Write the adapters of every group; what is left of them, group by group."""
    targets = resolve_targets(scenario.architecture, scenario.lora)
    made = [_made(writer, group, scenario, targets) for group in groups]
    element = scenario.lora.dtype.bytes
    return [_as_asked(writer, group, attached, element) for group, attached in zip(groups, made, strict=True)]


def _made(writer: Writer, group: Group, scenario: Scenario, targets: Targets) -> list[Attached]:
    """A layer's two matrices are made together, then moved one by one."""
    attached = []
    with writer.repeat(group.times):
        for weight in group.weights:
            tensors = adapter_tensors(weight, scenario.lora, targets)
            new = [Attached(weight, tensor, _FP32, _alloc(writer, tensor, _FP32)) for tensor in tensors]
            attached += [_cast(writer, one, _base_element(weight, scenario)) for one in new]
    return attached


def _as_asked(writer: Writer, group: Group, attached: list[Attached], element: int) -> list[Attached]:
    with writer.repeat(group.times):
        return [_cast(writer, one, element) for one in attached]


def _cast(writer: Writer, one: Attached, element: int) -> Attached:
    if one.element == element:
        return one
    block = _alloc(writer, one.tensor, element)
    writer.free(one.block)
    return one._replace(element=element, block=block)


def _alloc(writer: Writer, tensor: Trainable, element: int) -> int:
    return writer.alloc(Component.ADAPTERS, tensor.label, tensor.numel * element)


def _base_element(weight: Weight, scenario: Scenario) -> int:
    """Bytes of a number of the base layer's dtype: what a 4-bit one computes in; adapters of integers stay fp32."""
    if not is_quantized(weight, scenario.quant):
        return prepared_element(weight, scenario)
    return _FP32 if scenario.quant.type is QuantType.INT8 else scenario.compute_dtype.bytes
