"""A quantised matrix as numbers again, as timeline parts (bitsandbytes 0.50)."""

from vramplan.architecture import Weight
from vramplan.ledger import Component
from vramplan.predict.writer import Writer
from vramplan.scenario import Scenario


def dequantized_element(scenario: Scenario) -> int:
    """Bytes of a number: integers times their constants are fp32; 4-bit weights become what they were quantised of."""
    return scenario.dtype.bytes if scenario.quant.type.four_bit else 4


def write_dequantized(
    writer: Writer, weight: Weight, scenario: Scenario, held_as: Component = Component.WORKSPACE
) -> int:
    """The matrix's block; what is there beside it meanwhile is gone.

    _ops.py int8_vectorwise_dequant: `A * stats.view(-1, 1) * (1 / 127)` in fp32.
    """
    quant, numel, name = scenario.quant, weight.numel, weight.module
    beside = []
    if not quant.type.four_bit:
        beside.append(writer.temporary(f"{name} times its row constants", 4 * numel))
    elif quant.double:
        beside.append(writer.temporary(f"{name} block constants", 4 * -(-numel // quant.block_size)))
    matrix = writer.alloc(held_as, f"{name} dequantised", dequantized_element(scenario) * numel)
    writer.free(*beside)
    return matrix
