"""Formats that weights can be kept in: which there are, and what they cost in general and for a model."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

from vramplan.architecture import Architecture
from vramplan.errors import UsageError
from vramplan.predict.quantization import Bits, Stored, nominal_bits, quantized_parameters, stored
from vramplan.quant.levels import fp4_levels, int4_levels, nf4_levels
from vramplan.scenario import DType, Quant, QuantType, Scenario


class Kind(StrEnum):
    """What a code stands for."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT4 = "int4"  # evenly spaced, stored as nf4 is: a control, which no library trains with
    INT8 = "int8"  # evenly spaced, one scale per output row (LLM.int8())

    @property
    def four_bit(self) -> bool:
        """Whether two weights share a byte."""
        return self is not Kind.INT8

    @property
    def levels(self) -> tuple[float, ...]:
        """The values of its codes, ascending."""
        tables = {Kind.NF4: nf4_levels, Kind.FP4: fp4_levels, Kind.INT4: int4_levels}
        return tables[self]() if self in tables else tuple(i / 127 for i in range(-127, 128))


#: Block sizes that are compared when a format is named without one (QLoRA uses 64).
BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store a matrix."""

    kind: Kind
    block: int
    """Weights that share a constant; 0 for int8, whose constants are per row."""
    double: bool
    """Whether the block constants are quantised to 8 bits."""

    @property
    def label(self) -> str:
        """`nf4, blocks of 64, double`."""
        if not self.kind.four_bit:
            return f"{self.kind}, a scale per row"
        return f"{self.kind}, blocks of {self.block}{', double' if self.double else ''}"

    @property
    def quant(self) -> Quant:
        """The scenario's words for it; the control is stored as nf4 is."""
        kind = QuantType.NF4 if self.kind is Kind.INT4 else QuantType(self.kind.value)
        return Quant(type=kind, double=self.double, block_size=self.block or 64, storage="uint8")

    @property
    def bits(self) -> Bits:
        """Bits per parameter of a large matrix."""
        return nominal_bits(self.quant)


@dataclass(frozen=True)
class ModelSize:
    """What a model takes in one format."""

    format: Format
    parts: Stored
    """Its quantised matrices."""
    rest: int
    """Bytes of everything that is not quantised, in the scenario's dtype."""
    parameters: int
    """Parameters in the quantised matrices."""

    @property
    def total(self) -> int:
        """The whole model."""
        return self.parts.total + self.rest

    def to_json(self) -> dict[str, Any]:
        """Bytes by part, of the matrices and of the model."""
        return {**self.parts._asdict(), "matrices": self.parts.total, "rest": self.rest, "model": self.total}


@dataclass(frozen=True)
class Baseline:
    """What a model takes unquantised."""

    name: str
    matrices: int
    """Bytes of the matrices that are quantised in the formats."""
    total: int
    """Bytes of the whole model."""


def formats(kind: Kind | None, block: int | None, *, double: bool | None) -> tuple[Format, ...]:
    """The formats that a question means: what is not named is compared.

    Without a kind all of them, in blocks of 64 unless others are named; a kind alone in all block sizes.
    """
    if kind is Kind.INT8:
        if block is not None or double is not None:
            given = "--block-size" if block is not None else "--double" if double else "--no-double"
            raise UsageError(
                f"{given} with int8, which has one scale per row", hint="name nf4, fp4 or int4, or leave it out"
            )
        return (Format(Kind.INT8, 0, double=False),)
    kinds = (kind,) if kind is not None else (Kind.NF4, Kind.FP4, Kind.INT4)
    blocks = (block,) if block is not None else BLOCKS if kind is not None else BLOCKS[:1]
    doubles = (double,) if double is not None else (True, False)
    made = tuple(Format(k, b, double=d) for k, b, d in product(kinds, blocks, doubles))
    return made if kind is not None else (*made, Format(Kind.INT8, 0, double=False))


def model_sizes(scenario: Scenario, wanted: Iterable[Format]) -> tuple[ModelSize, ...]:
    """The scenario's model in each format."""
    architecture = scenario.architecture
    return tuple(_size(architecture, scenario, made) for made in wanted)


def _size(architecture: Architecture, scenario: Scenario, made: Format) -> ModelSize:
    count = quantized_parameters(architecture, made.quant)
    rest = (architecture.numel - count) * scenario.dtype.bytes
    return ModelSize(made, stored(architecture, made.quant), rest, count)


def baselines(scenario: Scenario) -> tuple[Baseline, ...]:
    """The scenario's model in fp32 and in the two 16-bit types."""
    architecture = scenario.architecture
    count = quantized_parameters(architecture, Format(Kind.NF4, 64, double=True).quant)
    return tuple(Baseline(d.value, count * d.bytes, architecture.numel * d.bytes) for d in DType)
