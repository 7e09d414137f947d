"""Adapters come to the model: made in fp32 on the host, moved to the base's device and dtype, cast at the end.

peft 0.21 tuners/tuners_utils.py `_move_adapter_to_device_of_base_layer`, `cast_adapter_dtype`; TRL casts once more.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vramplan.architecture import Weight
from vramplan.ledger import Component
from vramplan.predict.adapters import Trainable, adapted, adapter_tensors, whole
from vramplan.predict.base import Group, component, first_apart, prepared_element
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.magnitudes import adapted_matrix
from vramplan.predict.overheads import while_loading
from vramplan.predict.quantization import is_quantized
from vramplan.predict.saved_modules import is_copied
from vramplan.predict.writer import Piece, Writer
from vramplan.record import Device
from vramplan.scenario import DType, Method, QuantType, Scenario

_FP32 = DType.FLOAT32.bytes


class Attached(NamedTuple):
    """One of an adapter's matrices on the device."""

    weight: Weight
    tensor: Trainable
    element: int
    """Bytes of each of its numbers."""
    block: int


def attach(writer: Writer, groups: Sequence[Group], scenario: Scenario, device: Device) -> list[list[Attached]]:
    """Write the adapters of every group; what is left of them, group by group.

    DoRA's first product, which takes the library's workspace, is the first layer's: a group of its own.
    """
    targets = resolve_targets(scenario.architecture, scenario.lora)
    workspace = while_loading(scenario) if device == "cuda" else None
    if workspace is not None:
        groups = [*first_apart(groups)]
    first = next((group for group in groups if any(adapted(weight, targets) for weight in group.weights)), None)
    adapters = [
        _made(writer, group, scenario, targets, device, workspace if group is first else None) for group in groups
    ]
    copies = [_copied(writer, group, scenario) for group in groups]
    _cast_all(writer, groups, adapters, _FP32 if scenario.recasts_adapters else None)
    made = [[*both[0], *both[1]] for both in zip(adapters, copies, strict=True)]
    _cast_all(writer, groups, made)
    return made


def _cast_all(writer: Writer, groups: Sequence[Group], made: list[list[Attached]], element: int | None = None) -> None:
    """Cast all to numbers of `element` bytes, or to what each is trained in."""
    for group, attached in zip(groups, made, strict=True):
        with writer.repeat(group.times):
            attached[:] = [_cast(writer, one, element or one.tensor.element) for one in attached]


def _made(
    writer: Writer, group: Group, scenario: Scenario, targets: Targets, device: Device, library: Piece | None
) -> list[Attached]:
    """A layer's matrices are made together, then moved one by one: to a card as they are cast. Then DoRA's.

    The first product takes `library`."""
    attached = []
    with writer.repeat(group.times):
        for weight in group.weights:
            tensors = adapter_tensors(weight, scenario, targets)
            matrices, magnitudes = tensors[:2], tensors[2:]
            moved = _base_element(weight, scenario)
            made = moved if device == "cuda" else _FP32
            new = [Attached(weight, tensor, made, _alloc(writer, tensor, made)) for tensor in matrices]
            attached += [_cast(writer, one, moved) for one in new]
            for tensor in magnitudes:
                with adapted_matrix(writer, weight, group, matrices, scenario, moved, library) as element:
                    attached.append(Attached(weight, tensor, element, _alloc(writer, tensor, element)))
                library = None
    return attached


def _copied(writer: Writer, group: Group, scenario: Scenario) -> list[Attached]:
    """Copies of the modules that are trained whole, as the base's are."""
    copies = []
    with writer.repeat(group.times):
        for weight in group.weights:
            if is_copied(weight, scenario.lora):
                tensor, element, kind = whole(weight, scenario), prepared_element(weight, scenario), Component.ADAPTERS
                if scenario.method is Method.MERGE:  # what is read into them is cast, they are not
                    tensor, kind = tensor._replace(element=element), component(weight, scenario.quant)
                copies.append(Attached(weight, tensor, element, _alloc(writer, tensor, element, kind)))
    return copies


def _cast(writer: Writer, one: Attached, element: int) -> Attached:
    if one.element == element:
        return one
    block = _alloc(writer, one.tensor, element)
    writer.free(one.block)
    return one._replace(element=element, block=block)


def _alloc(writer: Writer, tensor: Trainable, element: int, kind: Component = Component.ADAPTERS) -> int:
    """A matrix with this many bytes a number; on its way, while they are not as it is trained."""
    settled = element == tensor.element
    return writer.alloc(kind if settled else Component.WORKSPACE, tensor.label, tensor.numel * element)


def _base_element(weight: Weight, scenario: Scenario) -> int:
    """Bytes of a number of the base layer's dtype: what a 4-bit one computes in; adapters of integers stay fp32."""
    if not is_quantized(weight, scenario.quant):
        return prepared_element(weight, scenario)
    return _FP32 if scenario.quant.type is QuantType.INT8 else scenario.compute_dtype.bytes
