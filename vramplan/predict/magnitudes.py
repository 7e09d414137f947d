"""DoRA's magnitudes begin as the norms of each adapted matrix, which is made whole for that while adapters come.

peft 0.21.2 tuners/lora/dora.py `update_layer`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vramplan.architecture import Weight
from vramplan.element_types import ELEMENT_BYTES
from vramplan.predict.adapters import Trainable
from vramplan.predict.base import prepared_element
from vramplan.predict.dequantized import dequantized_element, write_dequantized
from vramplan.predict.quantization import is_quantized, pieces
from vramplan.predict.weight_groups import Group
from vramplan.predict.writer import Piece, Writer
from vramplan.scenario import DType, Scenario


@contextmanager
def adapted_matrix(
    writer: Writer,
    weight: Weight,
    group: Group,
    factors: Sequence[Trainable],
    scenario: Scenario,
    dtype: str,
    library: Piece | None,
) -> Iterator[str]:
    """Inside, `weight + scaling * B @ A` is there: what its numbers are.

    `factors` are of `dtype`; those in float16 are multiplied in fp32. Once the product has its place, its library takes
    `library`, if this is the run's first.
    """
    quantised = is_quantized(weight, scenario.quant)
    held = []
    element = ELEMENT_BYTES[dtype]
    half = dtype == DType.FLOAT16
    if half:
        held += [writer.temporary(f"{factor.label} fp32", 4 * factor.numel) for factor in factors]
    if quantised and scenario.quant.type.four_bit:
        held += _copy(writer, weight, group, scenario)
    if quantised:
        of_matrix = dequantized_element(scenario)
        held.append(write_dequantized(writer, weight, scenario))
    else:
        of_matrix = prepared_element(weight, scenario)
    product = writer.temporary(f"{weight.module} B @ A", weight.numel * (4 if half else element))
    held.append(product)
    if library is not None:
        writer.hold(library)
    if half:
        held[-1] = writer.temporary(f"{weight.module} B @ A in float16", weight.numel * element)
        writer.free(product)
    scaled = writer.temporary(f"{weight.module} B @ A scaled", weight.numel * element)
    mixed = quantised and scenario.dtype is not scenario.compute_dtype  # float16 plus bfloat16 is fp32
    of_sum = 4 if mixed else max(of_matrix, element)
    held.append(writer.temporary(f"{weight.module} adapted", weight.numel * of_sum))
    writer.free(scaled)
    yield DType.FLOAT32 if of_sum == 4 else dtype
    writer.free(*reversed(held))


def _copy(writer: Writer, weight: Weight, group: Group, scenario: Scenario) -> list[int]:
    """`deepcopy` of a 4-bit layer: the constants that its matrix refers to, the matrix, a bias, and the constants once
    more, to which the layer refers too (bitsandbytes 0.50 nn/modules.py)."""
    packed, *constants = pieces(weight, scenario.quant)
    sizes = [*(piece.bytes for piece in (*constants, packed))]
    biases = (other for other in group.weights if other.path == f"{weight.owner}.bias")
    sizes += [bias.numel * prepared_element(bias, scenario) for bias in biases]
    sizes += [piece.bytes for piece in constants]
    return [writer.temporary(f"{weight.module} copied", size) for size in sizes]
