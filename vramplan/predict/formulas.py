"""The arithmetic behind every tensor that stays: what its bytes follow from, with the numbers put in."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from vramplan.architecture import Weight, WeightKind
from vramplan.ledger import Component
from vramplan.optimizers import optimizer
from vramplan.predict.adapters import MAGNITUDES, Trainable, trained_tensors
from vramplan.predict.base import component, loaded_element, prepared_element, upcasts
from vramplan.predict.expert_targets import resolve_targets
from vramplan.predict.optimizer import (
    FP32,
    MIN_8BIT_SIZE,
    MIN_PAGED_SIZE,
    STATE_BLOCK,
    Extent,
    State,
    shared_states,
    states,
)
from vramplan.predict.overheads import CUBLAS_WORKSPACE_LARGE, card, kept
from vramplan.predict.quantization import (
    NESTED_BLOCK,
    QuantizedPart,
    QuantizedPiece,
    is_quantized,
    not_quantized,
    pieces,
    shared_pieces,
)
from vramplan.predict.saved_modules import training_architecture
from vramplan.predict.step import settled_biases
from vramplan.predict.template import Product
from vramplan.record import Device
from vramplan.scenario import Quant, QuantType, Scenario

#: A tensor as the timeline knows it: component, label, bytes.
Key = tuple[Component, str, int]

#: Arithmetic and note of the tables, which are of one size for every matrix.
_TABLES = {
    QuantizedPart.CODE: ("16 x 4", "fp32, the 16 values of the 4-bit code, made anew for every matrix"),
    **dict.fromkeys(
        (QuantizedPart.CODE_MAP, QuantizedPart.SHARED_CODE_MAP), ("256 x 4", "fp32, the 256 values of the 8-bit code")
    ),
}


class Formula(NamedTuple):
    """How one tensor's bytes are worked out."""

    what: str
    """Name of the tensor within its owner; of the tensor itself when it has no owner."""
    owner: str
    """Whose it is: owners with equal formulas are told together."""
    text: str
    """Arithmetic whose value is the bytes."""
    note: str = ""


def formulas(scenario: Scenario, device: Device) -> dict[Key, Formula]:
    """The formula of every tensor of the base model, the adapters and the optimizer, and of cuBLAS's workspaces."""
    found: dict[Key, Formula] = {}
    architecture = scenario.architecture
    weights = (*(weight for weight, _ in architecture.counted), *architecture.buffers)
    biases = settled_biases(scenario, device)
    for piece in shared_pieces(scenario.quant):
        found[piece.component, piece.label, piece.bytes] = Formula(piece.label, "", *_TABLES[piece.part])
    for weight in weights:
        if is_quantized(weight, scenario.quant):
            for piece in pieces(weight, scenario.quant):
                found[piece.component, piece.label, piece.bytes] = _quantized(weight, piece, scenario.quant)
        else:
            found |= _unquantized(weight, scenario, biases.get(weight.path))
    if scenario.method.trains or scenario.method.adapts:
        found |= _trained(scenario, device)
    if device == "cuda":
        for product, workspace in kept(scenario).items():
            formula = Formula(workspace.label, "", *_workspace(product, workspace.bytes, scenario))
            found[workspace.component, workspace.label, workspace.bytes] = formula
    return found


def _workspace(product: Product, size: int, scenario: Scenario) -> tuple[str, str]:
    """How a workspace's size is known: torch's default; of cuBLAS's also half of what was measured on the card."""
    target, default = card(scenario), "torch's default size"
    if product.biased:
        return "1024 x 1024", default
    if target is not None and target.workspaces is not None:
        return f"{target.workspaces:,} / 2", target.context_origin
    return "8 x 4096 x 1024" if size == CUBLAS_WORKSPACE_LARGE else "(2 x 4096 + 8 x 16) x 1024", default


def dimensions(shape: tuple[int, ...]) -> str:
    """`4096 x 11008`; `1` for a scalar."""
    return " x ".join(map(str, shape)) or "1"


def _quantized(weight: Weight, piece: QuantizedPiece, quant: Quant) -> Formula:
    return Formula(piece.part.value, weight.module, *_quantized_arithmetic(weight, piece, quant))


def _quantized_arithmetic(weight: Weight, piece: QuantizedPiece, quant: Quant) -> tuple[str, str]:
    """Text and note of the formula."""
    size, numel, block = dimensions(weight.shape), weight.numel, quant.block_size
    if piece.part in _TABLES:
        return _TABLES[piece.part]
    if piece.part is QuantizedPart.PACKED:
        return _packed(size, numel, piece.bytes, quant)
    if piece.part is QuantizedPart.SCALES:
        return f"{weight.in_out[1]} x 4", "fp32, one scale for each output"
    if piece.part is QuantizedPart.OFFSET:
        return "4", "fp32, the mean of the block constants"
    if piece.part is QuantizedPart.SECOND_CONSTANTS:
        text = _ceiling(f"{size} / ({block} x {NESTED_BLOCK})", numel, block * NESTED_BLOCK)
        return f"{text} x 4", f"fp32, one for every {NESTED_BLOCK} block constants"
    text = _ceiling(f"{size} / {block}", numel, block)
    if quant.double:
        return text, f"uint8, one constant for every {block} weights"
    return f"{text} x 4", f"fp32, one constant for every {block} weights"


def _packed(size: str, numel: int, packed: int, quant: Quant) -> tuple[str, str]:
    if quant.type is QuantType.INT8:
        return size, "int8"
    if 2 * packed == numel:
        return f"{size} / 2", f"{quant.type.value}, two weights to a byte"
    return f"{packed}", f"{quant.type.value}, two weights to a byte in whole elements of {quant.storage}"


def _ceiling(text: str, numel: int, divisor: int) -> str:
    return f"ceil({text})" if numel % divisor else text


def _unquantized(weight: Weight, scenario: Scenario, settled: int | None) -> dict[Key, Formula]:
    """The weight as loaded, as prepared and as the first step leaves it (`settled`); equal bytes: the same tensor."""
    found = {}
    kind, size = component(weight, scenario.quant), dimensions(weight.shape)
    loaded, prepared = loaded_element(weight, scenario), prepared_element(weight, scenario)
    for element in (loaded, prepared, settled or prepared):
        note = weight.dtype or ("fp32" if element == 4 else scenario.dtype.value)
        if upcasts(weight, scenario) and element == prepared:
            note += ", cast by peft's preparation: 16-bit and not quantised"
        elif element != prepared and element != loaded:
            wanted = "the compute" if scenario.quant.type.four_bit else "its input's"
            note += f", cast by the first step: the bias of a quantised layer has {wanted} dtype"
        note += _why(weight, scenario)
        owner, _, what = weight.path.rpartition(".")
        found[kind, weight.path, weight.numel * element] = Formula(what, owner, f"{size} x {element}", note)
    return found


def _why(weight: Weight, scenario: Scenario) -> str:
    """Why a weight is not quantised, where that needs a reason; of a buffer that it is one, for its name does not."""
    if scenario.quant.type is QuantType.NONE:
        return ""
    buffer = weight.kind is WeightKind.BUFFER
    reason = "a buffer" if buffer else not_quantized(weight, scenario.architecture)
    return f"; {reason}" if reason else ""


def _trained(scenario: Scenario, device: Device) -> dict[Key, Formula]:
    trainer = scenario.stack.trainer
    architecture = training_architecture(scenario)
    targets = resolve_targets(architecture, scenario.lora)
    tensors = tuple(t for weight, _ in architecture.counted for t in trained_tensors(weight, scenario, targets))
    found: dict[Key, Formula] = {}
    for tensor in tensors:
        owner, _, what = tensor.label.rpartition(".")
        text = f"{dimensions(tensor.shape)} x {tensor.element}"
        if scenario.method.adapts:
            found[Component.ADAPTERS, tensor.label, tensor.bytes] = Formula(what, owner, text, _shape_note(what))
        if scenario.method.trains:
            found |= dict(_states(scenario.optimizer, tensor, device, trainer=trainer))
    if scenario.method.trains:
        for state in shared_states(scenario.optimizer, tensors, device, trainer=trainer):
            note = "fp32, one for the whole optimizer"
            found[Component.OPTIMIZER, state.label, state.bytes] = Formula(state.label, "", "256 x 4", note)
    return found


def _shape_note(what: str) -> str:
    return {"lora_A": "[r, in]", "lora_B": "[out, r]", MAGNITUDES: "[out], DoRA's"}.get(what, "")


def _states(name: str, tensor: Trainable, device: Device, *, trainer: bool) -> Iterator[tuple[Key, Formula]]:
    for state in states(name, tensor, device, trainer=trainer):
        if not state.managed:
            text = _state_text(state, tensor)
            formula = Formula(state.label, tensor.label, text, _state_note(name, state, tensor, device))
            yield (Component.OPTIMIZER, f"{state.label} {tensor.label}", state.bytes), formula


def _state_text(state: State, tensor: Trainable) -> str:
    size, numel = dimensions(tensor.shape), tensor.numel
    if state.extent is Extent.BLOCKS:
        return f"{_ceiling(f'{size} / {STATE_BLOCK}', numel, STATE_BLOCK)} x {FP32}"
    if state.extent is Extent.ONE:
        return f"{FP32}"
    if state.extent is Extent.ROWS:
        return f"{dimensions(tensor.shape[:-1])} x {FP32}"
    if state.extent is Extent.COLUMNS:
        return f"{dimensions((*tensor.shape[:-2], tensor.shape[-1]))} x {FP32}"
    element = state.bytes // prod(tensor.shape)
    return size if element == 1 else f"{size} x {element}"


def _state_note(name: str, state: State, tensor: Trainable, device: Device) -> str:
    """Which of bitsandbytes' two size rules the state falls under; nothing for torch's optimizers."""
    kind = optimizer(name)
    if not kind.bitsandbytes or state.extent is not Extent.ELEMENTS:
        return ""
    eight_bit = state.bytes < tensor.numel * FP32
    note = "8-bit" if eight_bit else "fp32"
    if kind.eight_bit and not eight_bit:
        few = f": {tensor.numel} elements are fewer than {MIN_8BIT_SIZE}"
        note += few if tensor.numel < MIN_8BIT_SIZE else ": the Trainer's rule for embeddings"
    if kind.paged and device == "cuda":
        note += f", not paged: {tensor.numel} elements are fewer than {MIN_PAGED_SIZE}"
    return note
