"""What bitsandbytes stores for a quantised weight, tensor by tensor (bitsandbytes 0.50.2)."""

from collections import Counter
from enum import StrEnum
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
#: transformers 5.17 quantizers/quantizer_bnb_{4,8}bit.py param_element_size: bytes that it counts for an element before
#: it loads the model, constants apart.
COUNTED_ELEMENT = {QuantType.NF4: 0.5, QuantType.FP4: 0.5, QuantType.INT8: 1.0}


class QuantizedPart(StrEnum):
    """What a tensor of a quantised weight is, in the words of labels."""

    PACKED = "packed"  # the weight itself
    SCALES = "SCB"  # int8's constants, one for each output
    CONSTANTS = "absmax"  # one for each block of weights
    SECOND_CONSTANTS = "nested absmax"  # one for each block of the constants
    OFFSET = "absmax offset"  # the mean of the constants
    CODE = "code table"
    CODE_MAP = "code map"
    SHARED_CODE_MAP = "code map of the process"


class QuantizedPiece(NamedTuple):
    """One tensor of a quantised weight."""

    owner: str
    """Last name of the module whose weight it is."""
    part: QuantizedPart
    bytes: int

    @property
    def component(self) -> Component:
        """What it is for."""
        return Component.WEIGHTS if self.part is QuantizedPart.PACKED else Component.QUANT_STATE

    @property
    def label(self) -> str:
        """Its name in a timeline."""
        return f"{self.owner} {self.part}"


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


def pieces(weight: Weight, quant: Quant) -> tuple[QuantizedPiece, ...]:
    """The tensors that a quantised weight becomes, in the order in which they are made."""
    name, numel = weight.module, weight.numel
    packed = QuantizedPiece(name, QuantizedPart.PACKED, packed_bytes(numel, quant))
    if quant.type is QuantType.INT8:
        # nn/modules.py Int8Params: int8 weight (CB is the same storage) and one fp32 scale per output row.
        return (packed, QuantizedPiece(name, QuantizedPart.SCALES, 4 * weight.in_out[1]))
    blocks = -(-numel // quant.block_size)
    code = QuantizedPiece(name, QuantizedPart.CODE, CODE_TABLE_BYTES)
    if not quant.double:
        return (packed, QuantizedPiece(name, QuantizedPart.CONSTANTS, 4 * blocks), code)
    return (
        packed,
        code,
        QuantizedPiece(name, QuantizedPart.OFFSET, OFFSET_BYTES),
        QuantizedPiece(name, QuantizedPart.SECOND_CONSTANTS, 4 * -(-blocks // NESTED_BLOCK)),
        QuantizedPiece(name, QuantizedPart.CONSTANTS, blocks),
        QuantizedPiece(name, QuantizedPart.CODE_MAP, DYNAMIC_MAP_BYTES),
    )


def shared_pieces(quant: Quant) -> tuple[QuantizedPiece, ...]:
    """What the process holds once: `functional.name2qmap["dynamic"]`, made when the first absmax is quantised."""
    if quant.type.four_bit and quant.double:
        return (QuantizedPiece("dynamic", QuantizedPart.SHARED_CODE_MAP, DYNAMIC_MAP_BYTES),)
    return ()


class Bits(NamedTuple):
    """What one parameter of the quantised linear layers costs, in bits."""

    packed: float
    first: float
    """First-level constants."""
    second: float
    """Second-level constants; 0 without double quantisation."""
    tables: float
    """Code tables, code maps and offsets: so many bytes per matrix, whatever its size."""

    @property
    def constants(self) -> float:
        """Constants of both levels: they grow with the matrix."""
        return self.first + self.second

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


def stored(architecture: Architecture, quant: Quant) -> Stored:
    """What the model's quantised matrices take, by part."""
    sizes: Counter[QuantizedPart] = Counter()
    for weight, times in architecture.counted:
        if is_quantized(weight, quant):
            for piece in pieces(weight, quant):
                sizes[piece.part] += times * piece.bytes
    if sizes:
        for piece in shared_pieces(quant):
            sizes[piece.part] += piece.bytes
    return Stored(
        packed=sizes[QuantizedPart.PACKED],
        first=sizes[QuantizedPart.CONSTANTS] + sizes[QuantizedPart.SCALES],
        second=sizes[QuantizedPart.SECOND_CONSTANTS],
        offsets=sizes[QuantizedPart.OFFSET],
        tables=sizes[QuantizedPart.CODE] + sizes[QuantizedPart.CODE_MAP] + sizes[QuantizedPart.SHARED_CODE_MAP],
    )


def bits(architecture: Architecture, quant: Quant) -> Bits:
    """Bits per quantised parameter, averaged over the model; all 0 when nothing is quantised."""
    numel = quantized_parameters(architecture, quant)
    if not numel:
        return Bits(0.0, 0.0, 0.0, 0.0)
    packed, first, second, offsets, tables = (8 * part / numel for part in stored(architecture, quant))
    return Bits(packed, first, second, offsets + tables)


def nominal_bits(quant: Quant) -> Bits:
    """Bits per parameter of a matrix so large that only what grows with it counts; int8's scales grow with its rows."""
    block = quant.block_size
    if not quant.type.four_bit:
        return Bits(8.0, 0.0, 0.0, 0.0)
    if quant.double:
        return Bits(4.0, 8 / block, 32 / (block * NESTED_BLOCK), 0.0)
    return Bits(4.0, 32 / block, 0.0, 0.0)


def bits_sentence(quant: Quant, *, digits: int) -> str:
    """Those of a 4-bit format worked out: `4 + 8/64 + 32/(64 x 256) = 4.127 bits per parameter, ...`."""
    block = quant.block_size
    terms = f"8/{block} + 32/({block} x {NESTED_BLOCK})" if quant.double else f"32/{block}"
    return f"4 + {terms} = {nominal_bits(quant).per_parameter:.{digits}f} bits per parameter, small tables apart"
