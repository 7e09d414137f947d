"""The load phase: build, quantise, upcast, attach adapters. People run out of memory before step one."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vramplan.allocator.rules import WARM_UP_SPARED
from vramplan.architecture import Weight
from vramplan.ledger import Phase
from vramplan.predict.attaching import attach
from vramplan.predict.base import is_made_fp32, loaded_element, piece, prepared_element, upcasts
from vramplan.predict.expert_targets import fused_projections
from vramplan.predict.overheads import card
from vramplan.predict.quantization import COUNTED_ELEMENT, is_quantized, pieces, quantized_parameters, shared_pieces
from vramplan.predict.saved_modules import head_apart
from vramplan.predict.weight_groups import Group, layer_groups
from vramplan.predict.weights_file import join_experts, load_groups
from vramplan.predict.writer import Writer
from vramplan.record import Device
from vramplan.scenario import DType, Quant, QuantType, Scenario
from vramplan.stacks import Upcast


class Held(NamedTuple):
    """An unquantised weight on the device."""

    weight: Weight
    block: int


def write_load(writer: Writer, scenario: Scenario, device: Device) -> list[tuple[Group, list[Held]]]:
    """Write the load phase; returns the unquantised weights that are left on the device."""
    begin_load(writer, scenario, device)
    groups = [(group, _load(writer, group, scenario, device)) for group in load_groups(scenario)]
    if scenario.method.trains:
        groups = _in_model_order(groups, scenario)
    if scenario.method.trains and scenario.stack.upcast is not Upcast.NONE:
        groups = [(group, _upcast(writer, group, held, scenario)) for group, held in groups]
        writer.empty_cache()  # peft 0.21.2 utils/other.py, auto_clear_cache
        if scenario.stack.upcast is not Upcast.ALL:
            groups = [(group, _cast_back(writer, group, held, scenario)) for group, held in groups]
    if scenario.method.adapts:
        attach(writer, [*(group for group, _ in groups), Group(head_apart(scenario), 1)], scenario, device)
    if scenario.method.trains and scenario.stack.trainer:
        writer.empty_cache()  # transformers 5.17 trainer.py _inner_training_loop: accelerator.free_memory()
    return groups


def begin_load(writer: Writer, scenario: Scenario, device: Device) -> None:
    """Write what comes before the first weight: the warm-up of a card's allocator, and tables of the process."""
    writer.enter(Phase.LOAD)
    if device == "cuda" and scenario.arrives_by_tensor:
        _warm_up(writer, scenario)
    if quantized_parameters(scenario.architecture, scenario.quant):
        for shared in shared_pieces(scenario.quant):
            writer.hold(shared)


def write_first_step(
    writer: Writer, groups: Iterable[tuple[Group, list[Held]]], scenario: Scenario, biases: Mapping[str, int]
) -> None:
    """What the first forward changes in the base model for good: `biases`, by path, to so many bytes per element."""
    for group, held in groups:
        with writer.repeat(group.times):
            for weight, block in held:
                now = biases.get(weight.path)
                if now is not None and now != prepared_element(weight, scenario):
                    writer.free(block)
                    writer.hold(piece(weight, now, scenario.quant))


def _in_model_order(groups: list[tuple[Group, list[Held]]], scenario: Scenario) -> list[tuple[Group, list[Held]]]:
    """The same weights in the order of `model.parameters()`, in which peft goes through them."""
    architecture = scenario.architecture
    outside = [held for _, group in (groups[0], *groups[-2:]) for held in group]
    ends = [Group(weights, 1) for weights in (architecture.before, architecture.after, architecture.buffers)]
    ordered = [(ends[0], outside), *zip(layer_groups(architecture), (held for _, held in groups[1:-2]), strict=True)]
    ordered += [(end, outside) for end in ends[1:]]
    return [(group, sorted(_of(group, held), key=lambda h: group.weights.index(h.weight))) for group, held in ordered]


def _of(group: Group, held: Iterable[Held]) -> list[Held]:
    return [one for one in held if one.weight in group.weights]


def _warm_up(writer: Writer, scenario: Scenario) -> None:
    """One block of about the model's size, as far as the card has room, taken and freed (transformers 5.17
    modeling_utils.py caching_allocator_warmup).

    It counts every parameter and saved buffer as loaded: half a byte for a 4-bit weight, without block constants.
    """
    size, target = 0.0, card(scenario)
    for weight, times in scenario.architecture.counted:
        quantized = is_quantized(weight, scenario.quant)
        element = COUNTED_ELEMENT[scenario.quant.type] if quantized else loaded_element(weight, scenario)
        size += weight.numel * times * element
    block = size if target is None else min(size, target.capacity - WARM_UP_SPARED)
    writer.free(writer.temporary("from_pretrained's warm-up of the allocator", int(block // 2) * 2))


def _load(writer: Writer, group: Group, scenario: Scenario, device: Device) -> list[Held]:
    """Put the weights of a group on the device, quantising one matrix at a time."""
    held = []
    with writer.repeat(group.times):
        for weight in group.weights:
            blocks = load_weight(writer, weight, scenario, device)
            if not is_quantized(weight, scenario.quant):
                held.append(Held(weight, *blocks))
    return held


def load_weight(writer: Writer, weight: Weight, scenario: Scenario, device: Device) -> tuple[int, ...]:
    """Put one weight on the device; the blocks that stay: itself, or what quantisation makes of it."""
    if is_quantized(weight, scenario.quant):
        return _quantize(writer, weight, scenario, device)
    stored = piece(weight, loaded_element(weight, scenario), scenario.quant)
    projections = fused_projections(scenario.architecture.family, weight) if scenario.arrives_by_tensor else ()
    return (join_experts(writer, weight, stored, projections) if projections else writer.hold(stored),)


def _quantize(writer: Writer, weight: Weight, scenario: Scenario, device: Device) -> tuple[int, ...]:
    """One matrix arrives, is quantised, and goes: what stays is made while it is there."""
    flying = _in_flight(writer, weight, scenario, device)
    kept = write_quantization(writer, weight, scenario.quant, device, scenario.dtype, flying)
    writer.free(*reversed(flying))
    return kept


def write_quantization(
    writer: Writer, weight: Weight, quant: Quant, device: Device, dtype: DType, flying: list[int]
) -> tuple[int, ...]:
    """What quantising a matrix of `dtype` makes: the blocks that stay are returned, temporaries go to `flying`.

    bitsandbytes 0.50 backends/cuda/ops.py `quantize_4bit` makes the fp32 block constants first.
    """
    name, numel = weight.module, weight.numel
    blocks = 4 * -(-numel // quant.block_size)
    packed, *constants = pieces(weight, quant)
    first: tuple[int, ...] = ()
    if quant.double:
        flying.append(writer.temporary(f"{name} fp32 absmax", blocks))
    elif quant.type.four_bit:
        first = (writer.hold(constants.pop(0)),)
    if device == "cpu":
        scratch = writer.temporary(f"{name} being quantised", _cpu_scratch(numel, quant, dtype))
        kept = writer.hold(packed)
        writer.free(scratch)
    else:
        kept = writer.hold(packed)
    if quant.double:
        flying.append(writer.temporary(f"{name} fp32 absmax less its mean", blocks))
    return (kept, *first, *(writer.hold(constant) for constant in constants))


def _in_flight(writer: Writer, weight: Weight, scenario: Scenario, device: Device) -> list[int]:
    """The unquantised matrix, and the copies that are made of it before it is quantised."""
    size, name = weight.numel * scenario.dtype.bytes, weight.module
    made = [writer.temporary(f"{name} to be quantised", size)]
    int8 = scenario.quant.type is QuantType.INT8
    if weight.transposed and not int8:  # integrations/bitsandbytes.py: `value.T`, made contiguous by Params4bit
        made.append(writer.temporary(f"{name} transposed", size))
    if int8 and (device == "cuda" or scenario.dtype is not DType.FLOAT16):  # Int8Params._quantize, from the CPU
        made.append(writer.temporary(f"{name} in float16", 2 * weight.numel))
    return made


def _cpu_scratch(numel: int, quant: Quant, dtype: DType) -> int:
    """Bytes of temporaries, per matrix, that bitsandbytes' plain-torch quantisation holds at its highest moment.

    backends/default/ops.py 0.50.2 quantize_4bit, at the line that packs: the fp32 copy (4 B an element, if the weight
    was 16-bit), the scaled values (4), their int32 codes (4), the uint8 codes (1), the shifted half (0.5); fp4 before
    that, at `order[q]`: the int32 codes and their int64 places (12), nothing packed yet (-0.5).
    int8_vectorwise_quant, when it rounds: the fp32 product and its rounding (8), nothing packed yet (-1).
    """
    if quant.type is QuantType.INT8:
        return 7 * numel
    copy = 0 if dtype is DType.FLOAT32 else 4 * numel
    codes = 12 * numel - numel // 2 if quant.type is QuantType.FP4 else 5 * numel + numel // 2
    return copy + 4 * numel + codes


def _upcast(writer: Writer, group: Group, held: list[Held], scenario: Scenario) -> list[Held]:
    """peft's `param.data = param.data.to(torch.float32)`, parameter by parameter; each old one goes after the new."""
    after = []
    with writer.repeat(group.times):
        for weight, block in held:
            if is_made_fp32(weight, scenario):
                block = _replaced(writer, weight, block, 4, scenario)
            after.append(Held(weight, block))
    return after


def _cast_back(writer: Writer, group: Group, held: list[Held], scenario: Scenario) -> list[Held]:
    """What a trainer casts back to the dtype that it was loaded in, after the preparation: TRL, axolotl."""
    after = []
    with writer.repeat(group.times):
        for weight, block in held:
            if is_made_fp32(weight, scenario) and not upcasts(weight, scenario):
                block = _replaced(writer, weight, block, loaded_element(weight, scenario), scenario)
            after.append(Held(weight, block))
    return after


def _replaced(writer: Writer, weight: Weight, block: int, element: int, scenario: Scenario) -> int:
    new = writer.hold(piece(weight, element, scenario.quant))
    writer.free(block)
    return new
