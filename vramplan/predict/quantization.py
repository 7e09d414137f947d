"""What bitsandbytes stores for a quantised weight, tensor by tensor (bitsandbytes 0.50.2)."""

from typing import NamedTuple

from vramplan.architecture import Architecture, Weight, WeightKind
from vramplan.element_types import ELEMENT_BYTES
from vramplan.ledger import Component
from vramplan.scenario import Quant, QuantType

#: functional.py quantize_4bit: `quantize_blockwise(absmax - offset, blocksize=256)`.
NESTED_BLOCK = 256
#: functional.py get_4bit_type: 16 fp32 values, made anew for every matrix.
CODE_TABLE_BYTES = 16 * 4
#: functional.py create_dynamic_map: 256 fp32 values; quantize_blockwise copies them per matrix (`code.to(copy=True)`).
DYNAMIC_MAP_BYTES = 256 * 4
#: functional.py quantize_4bit: `offset = absmax.mean()`, one fp32.
OFFSET_BYTES = 4


class Piece(NamedTuple):
    """One tensor: what it is for, its name, its raw bytes."""

    component: Component
    label: str
    bytes: int


def is_quantized(weight: Weight, quant: Quant) -> bool:
    """Whether bitsandbytes quantises `weight`.

    transformers 5.17 (integrations/bitsandbytes.py, replace_with_bnb_linear) replaces exactly `nn.Linear` and `Conv1D`,
    subclasses and the output head excepted; embeddings, norms, biases, and the 3-D parameters and bare routers of a
    mixture of experts stay as they are.
    """
    return quant.type is not QuantType.NONE and weight.kind is WeightKind.LINEAR


def not_quantized(weight: Weight, architecture: Architecture) -> str:
    """Why bitsandbytes leaves a weight as it is; empty for one that nobody takes for a matrix (norms, biases, buffers).

    transformers 5.17 integrations/bitsandbytes.py replace_with_bnb_linear, quantizers/base.py
    get_modules_to_not_convert.
    """
    if weight.kind is WeightKind.SUBLINEAR:
        return "a subclass of nn.Linear, or skipped by transformers for this model: only nn.Linear itself is replaced"
    if weight.kind is WeightKind.HEAD:
        return "the output head, which transformers leaves out"
    if weight.kind is WeightKind.EMBEDDING:
        tied = architecture.tied and weight.path == architecture.table.path
        return "nn.Embedding; the output head shares it" if tied else "nn.Embedding, no nn.Linear"
    if weight.kind is WeightKind.EXPERTS:
        return f"{_of_experts(weight)}, no nn.Linear"
    if weight.kind is WeightKind.ROUTER:
        return "a bare parameter of the router, no nn.Linear"
    return ""


def _of_experts(weight: Weight) -> str:
    if weight.path.endswith("bias"):
        return "a bias of every expert"
    stacked = len(weight.shape) > 2  # DBRX lays its experts end to end in a matrix
    return f"{weight.shape[0]} experts in one parameter" if stacked else "every expert in one parameter"


def packed_bytes(numel: int, quant: Quant) -> int:
    """Bytes of the quantised weight itself: two to a byte in 4 bits, in whole elements of the storage dtype.

    bitsandbytes backends/cuda/ops.py quantize_4bit: `(n + 1) // (itemsize * 2)` elements.
    """
    if not quant.type.four_bit:
        return numel
    element = ELEMENT_BYTES[quant.storage]
    return (numel + 1) // (2 * element) * element


def pieces(weight: Weight, quant: Quant) -> tuple[Piece, ...]:
    """The tensors that a quantised weight becomes, in the order in which they are made."""
    name, numel = weight.module, weight.numel
    packed = Piece(Component.WEIGHTS, f"{name} packed", packed_bytes(numel, quant))
    if quant.type is QuantType.INT8:
        # nn/modules.py Int8Params: int8 weight (CB is the same storage) and one fp32 scale per output row.
        return (packed, Piece(Component.QUANT_STATE, f"{name} SCB", 4 * weight.in_out[1]))
    blocks = -(-numel // quant.block_size)
    code = Piece(Component.QUANT_STATE, f"{name} code table", CODE_TABLE_BYTES)
    if not quant.double:
        return (packed, Piece(Component.QUANT_STATE, f"{name} absmax", 4 * blocks), code)
    return (
        packed,
        code,
        Piece(Component.QUANT_STATE, f"{name} absmax offset", OFFSET_BYTES),
        Piece(Component.QUANT_STATE, f"{name} nested absmax", 4 * -(-blocks // NESTED_BLOCK)),
        Piece(Component.QUANT_STATE, f"{name} absmax", blocks),
        Piece(Component.QUANT_STATE, f"{name} code map", DYNAMIC_MAP_BYTES),
    )


def shared_pieces(quant: Quant) -> tuple[Piece, ...]:
    """What the process holds once: `functional.name2qmap["dynamic"]`, made when the first absmax is quantised."""
    if quant.type.four_bit and quant.double:
        return (Piece(Component.QUANT_STATE, "dynamic code map of the process", DYNAMIC_MAP_BYTES),)
    return ()


class Bits(NamedTuple):
    """What one parameter of the quantised linear layers costs, in bits."""

    packed: float
    constants: float
    """Block constants and their own constants: they grow with the matrix."""
    tables: float
    """Code tables, code maps and offsets: so many bytes per matrix, whatever its size."""

    @property
    def per_parameter(self) -> float:
        """Packed weight and block constants, the figure that papers quote; tables apart."""
        return self.packed + self.constants


def quantized_parameters(architecture: Architecture, quant: Quant) -> int:
    """How many parameters are quantised."""
    return sum(weight.numel * times for weight, times in architecture.counted if is_quantized(weight, quant))


class Stored(NamedTuple):
    """Bytes of all quantised matrices of a model, by part."""

    packed: int
    """The weights themselves."""
    first: int
    """First-level constants: one per block of weights (int8: one per output row)."""
    second: int
    """Second-level constants, one per 256 of the first level; 0 without double quantisation."""
    offsets: int
    """The mean that is taken off the first-level constants before they are quantised, one per matrix."""
    tables: int
    """Code tables and maps, per matrix and once for the process."""

    @property
    def total(self) -> int:
        """Everything."""
        return sum(self)


#: Which part of `Stored` each piece belongs to, by the end of its label; the others are the packed weights.
_PART = {
    " nested absmax": "second",
    " absmax": "first",
    " SCB": "first",
    " absmax offset": "offsets",
    " code table": "tables",
    " code map": "tables",
    " code map of the process": "tables",
}


def stored(architecture: Architecture, quant: Quant) -> Stored:
    """What the model's quantised matrices take, by part."""
    sizes = dict.fromkeys(Stored._fields, 0)
    for weight, times in architecture.counted:
        if is_quantized(weight, quant):
            for piece in pieces(weight, quant):
                sizes[_part(piece)] += times * piece.bytes
    if sizes["packed"]:
        for piece in shared_pieces(quant):
            sizes[_part(piece)] += piece.bytes
    return Stored(**sizes)


def _part(piece: Piece) -> str:
    return next((part for end, part in _PART.items() if piece.label.endswith(end)), "packed")


def bits(architecture: Architecture, quant: Quant) -> Bits:
    """Bits per quantised parameter, averaged over the model; all 0 when nothing is quantised."""
    numel = quantized_parameters(architecture, quant)
    if not numel:
        return Bits(0.0, 0.0, 0.0)
    packed, first, second, offsets, tables = (8 * part / numel for part in stored(architecture, quant))
    return Bits(packed, first + second, offsets + tables)
