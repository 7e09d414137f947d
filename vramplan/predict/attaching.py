"""Adapters come to the model: made in fp32 on the host, moved to the base's device and dtype, cast at the end.

peft 0.21 tuners/tuners_utils.py `_move_adapter_to_device_of_base_layer`, `cast_adapter_dtype`; TRL casts once more.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vramplan.architecture import Weight
from vramplan.element_types import ELEMENT_BYTES
from vramplan.ledger import Component
from vramplan.predict.adapters import Trainable, adapted, adapter_tensors, whole
from vramplan.predict.base import component, prepared_dtype
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.magnitudes import adapted_matrix
from vramplan.predict.overheads import while_loading
from vramplan.predict.quantization import is_quantized
from vramplan.predict.saved_modules import is_copied, trained_dtype
from vramplan.predict.weight_groups import Group, first_apart
from vramplan.predict.writer import Piece, Writer
from vramplan.record import Device
from vramplan.scenario import DType, Method, QuantType, Scenario


class Attached(NamedTuple):
    """One of an adapter's matrices on the device."""

    weight: Weight
    tensor: Trainable
    dtype: str
    """What its numbers are now."""
    settled: str
    """What they are once it is trained."""
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
    if scenario.recasts_adapters or scenario.lora.dtype is DType.FLOAT32:  # peft's autocast_adapter_dtype
        _cast_all(writer, groups, adapters, DType.FLOAT32)
    made = [[*both[0], *both[1]] for both in zip(adapters, copies, strict=True)]
    _cast_all(writer, groups, made)
    return made


def _cast_all(writer: Writer, groups: Sequence[Group], made: list[list[Attached]], dtype: str | None = None) -> None:
    """Cast all to `dtype`, or to what each is trained in."""
    for group, attached in zip(groups, made, strict=True):
        with writer.repeat(group.times):
            attached[:] = [_cast(writer, one, dtype or one.settled) for one in attached]


def _made(
    writer: Writer, group: Group, scenario: Scenario, targets: Targets, device: Device, library: Piece | None
) -> list[Attached]:
    """An adapter's two matrices are made together, then cast to the base's type one by one; on a card they arrive in
    that type. DoRA's magnitudes come last, and their first product takes the workspace `library`."""
    attached = []
    with writer.repeat(group.times):
        for weight in group.weights:
            tensors = adapter_tensors(weight, scenario, targets)
            matrices, magnitudes = tensors[:2], tensors[2:]
            moved, trained = _base_dtype(weight, scenario), scenario.lora.dtype
            made = moved if device == "cuda" else DType.FLOAT32
            new = [_attached(writer, weight, tensor, made, trained) for tensor in matrices]
            attached += [_cast(writer, one, moved) for one in new]
            if scenario.recasts_adapters:  # TRL's cast passes magnitudes over
                trained = DType.FLOAT32
            for tensor in magnitudes:
                with adapted_matrix(writer, weight, group, matrices, scenario, moved, library) as dtype:
                    attached.append(_attached(writer, weight, tensor, dtype, trained))
                library = None
    return attached


def _copied(writer: Writer, group: Group, scenario: Scenario) -> list[Attached]:
    """Copies of the modules that are trained whole, as the base's are."""
    copies = []
    with writer.repeat(group.times):
        for weight in group.weights:
            if is_copied(weight, scenario.lora):
                merged = scenario.method is Method.MERGE
                kind = component(weight, scenario.quant) if merged else Component.ADAPTERS
                now, trained = prepared_dtype(weight, scenario), trained_dtype(weight, scenario)
                copies.append(_attached(writer, weight, whole(weight, scenario), now, trained, kind))
    return copies


def _attached(
    writer: Writer,
    weight: Weight,
    tensor: Trainable,
    dtype: str,
    settled: str,
    kind: Component = Component.ADAPTERS,
) -> Attached:
    """A matrix of such numbers on the device; on its way, while they are not what it is trained in."""
    label, size = tensor.label, tensor.numel * ELEMENT_BYTES[dtype]
    block = writer.alloc(kind if dtype == settled else Component.WORKSPACE, label, size)
    return Attached(weight, tensor, dtype, settled, block)


def _cast(writer: Writer, one: Attached, dtype: str) -> Attached:
    if one.dtype == dtype:
        return one
    new = _attached(writer, one.weight, one.tensor, dtype, one.settled)
    writer.free(one.block)
    return new


def _base_dtype(weight: Weight, scenario: Scenario) -> str:
    """The base layer's dtype: what a 4-bit one computes in; adapters of integers stay fp32."""
    if not is_quantized(weight, scenario.quant):
        return prepared_dtype(weight, scenario)
    return DType.FLOAT32 if scenario.quant.type is QuantType.INT8 else scenario.compute_dtype
