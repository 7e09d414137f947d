"""Which formats a question means, and what they cost: against arithmetic and against the ledger of a prediction."""

import pytest

from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.predict.forecast import ledger
from vramplan.quant.formats import BLOCKS, Format, Kind, baselines, formats, model_sizes
from vramplan.scenario import Scenario

NF4 = Format(Kind.NF4, 64, double=True)


def test_bits_of_qlora() -> None:
    assert NF4.bits.per_parameter == 4 + 8 / 64 + 32 / (64 * 256) == 4.126953125
    assert Format(Kind.NF4, 64, double=False).bits.per_parameter == 4.5
    assert Format(Kind.FP4, 4096, double=False).bits.per_parameter == 4 + 32 / 4096
    assert Format(Kind.INT8, 0, double=False).bits.per_parameter == 8.0


def test_what_is_not_named_is_compared() -> None:
    everything = formats(None, None, double=None)
    assert [made.label for made in everything] == [
        "nf4, blocks of 64, double", "nf4, blocks of 64", "fp4, blocks of 64, double", "fp4, blocks of 64",
        "int4, blocks of 64, double", "int4, blocks of 64", "int8, a scale per row",
    ]  # fmt: skip
    assert {made.block for made in formats(Kind.FP4, None, double=True)} == set(BLOCKS)
    assert formats(Kind.NF4, 64, double=True) == (NF4,)
    assert {made.double for made in formats(None, 128, double=False)} == {False}
    assert formats(Kind.INT8, None, double=None) == (Format(Kind.INT8, 0, double=False),)


@pytest.mark.parametrize(("block", "double"), [(64, None), (None, True), (None, False)])
def test_int8_has_neither_blocks_nor_double_quantisation(block: int | None, double: bool | None) -> None:
    with pytest.raises(UsageError, match="with int8, which has one scale per row"):
        formats(Kind.INT8, block, double=double)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_a_models_bytes_are_those_of_its_prediction(kind: str) -> None:
    block, double = (64, True) if kind != "int8" else (0, False)
    made = Format(Kind(kind), block, double=double)
    scenario = Scenario.load("gpt2", method="inference", quant={"type": kind})
    [size] = model_sizes(scenario, [made])
    held = ledger(scenario, "cpu")
    loaded = {c: held.bytes(Phase.LOAD, c) for c in Component}
    assert size.parts.packed == loaded[Component.WEIGHTS]
    assert size.parts.total - size.parts.packed == loaded[Component.QUANT_STATE]
    buffers = sum(buffer.numel * 4 for buffer in scenario.architecture.buffers)
    assert size.rest + buffers == loaded[Component.UNQUANTIZED]


def test_unquantised_sizes() -> None:
    # 6,738,415,616 parameters, 6,476,005,376 of them in the matrices
    fp32, fp16, bf16 = baselines(Scenario.load("llama-2-7b"))
    assert (fp32.total, fp16.total, bf16.total) == (4 * 6_738_415_616, 2 * 6_738_415_616, 2 * 6_738_415_616)
    assert fp16.matrices == 2 * 6_476_005_376


def test_the_control_is_stored_as_nf4() -> None:
    sizes = model_sizes(Scenario.load("gpt2"), [NF4, Format(Kind.INT4, 64, double=True)])
    assert sizes[0].parts == sizes[1].parts
