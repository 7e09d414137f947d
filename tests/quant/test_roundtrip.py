"""bitsandbytes' round trip against a reference that is written to be read, not to be fast."""

import pytest
import torch
from bitsandbytes import functional

from vramplan.quant.formats import Format, Kind
from vramplan.quant.levels import fp4_levels, int4_levels, nf4_levels
from vramplan.quant.roundtrip import round_trip

#: The 256 values of the dynamic 8-bit type. Decimal exponents from 1e-6 to 1, each with twice as many evenly spaced
#: fractions as the one below it: bitsandbytes functional.py create_dynamic_map, which the test below holds it to.
DYNAMIC_MAP = (
    0.0,
    1.0,
    *(
        sign * 10.0 ** (exponent - 6) * (0.1 + 0.9 * (i + 0.5) / 2**exponent)
        for exponent in range(7)
        for i in range(2**exponent)
        for sign in (1, -1)
    ),
)
LEVELS = {Kind.NF4: nf4_levels(), Kind.FP4: fp4_levels(), Kind.INT4: int4_levels()}


def test_the_dynamic_map_is_bitsandbytes() -> None:
    assert sorted(DYNAMIC_MAP) == pytest.approx(functional.create_dynamic_map().tolist(), abs=2**-23)


def nearest(values: list[float], levels: tuple[float, ...]) -> list[float]:
    return [min(levels, key=lambda level: abs(level - value)) for value in values]


def constants(blocks: list[list[float]], *, double: bool) -> list[float]:
    """Each block's largest magnitude; with double quantisation their differences from the mean as 8-bit codes.

    Assumes no more than 256 blocks, which share one second-level constant.
    """
    largest = [max(abs(value) for value in block) for block in blocks]
    if not double:
        return largest
    mean = sum(largest) / len(largest)
    second = max(abs(value - mean) for value in largest)
    coded = nearest([(value - mean) / second for value in largest], DYNAMIC_MAP)
    return [code * second + mean for code in coded]


def reference(weights: list[float], kind: Kind, block: int, *, double: bool) -> list[float]:
    """Each block is divided by its largest magnitude, each value goes to the nearest level, and back."""
    blocks = [weights[i : i + block] for i in range(0, len(weights), block)]
    largest = [max(abs(value) for value in part) for part in blocks]
    kept = constants(blocks, double=double)
    return [
        level * constant
        for part, own, constant in zip(blocks, largest, kept, strict=True)
        for level in nearest([value / own for value in part], LEVELS[kind])
    ]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("block", [64, 256])
@pytest.mark.parametrize("kind", [Kind.NF4, Kind.FP4, Kind.INT4])
def test_four_bits(kind: Kind, block: int, double: bool) -> None:
    weights = torch.randn(24, 70, generator=torch.Generator().manual_seed(1))  # 26.25 or 6.56 blocks: the last is short
    found = round_trip(weights, Format(kind, block, double))
    expected = torch.tensor(reference(weights.flatten().tolist(), kind, block, double=double))
    assert found.values.shape == weights.shape
    # fp32 on one side and fp64 on the other: values within rounding of the middle between two levels may part
    off = (found.values.flatten() - expected).abs() > 1e-5
    assert int(off.sum()) <= 2


@pytest.mark.parametrize("kind", [Kind.NF4, Kind.FP4, Kind.INT4])
def test_codes_stand_for_the_values(kind: Kind) -> None:
    from bitsandbytes import functional

    weights = torch.randn(8, 64, generator=torch.Generator().manual_seed(2))
    found = round_trip(weights, Format(kind, 64, double=False))
    table = torch.tensor(int4_levels()) if kind is Kind.INT4 else functional.get_4bit_type(kind.value, "cpu")
    largest = weights.abs().amax(dim=1, keepdim=True)
    assert torch.allclose(table[found.codes.int()].view(8, 64) * largest, found.values, atol=1e-6)


def test_int8_has_a_scale_per_row() -> None:
    weights = torch.randn(5, 33, generator=torch.Generator().manual_seed(3)).half().float()  # exact in fp16
    found = round_trip(weights, Format(Kind.INT8, 0, double=False))
    scale = weights.abs().amax(dim=1, keepdim=True) / 127
    assert torch.allclose(found.values, (weights / scale).round() * scale, atol=2e-3)
    assert int(found.codes.max()) <= 254


@pytest.mark.parametrize("kind", list(Kind))
def test_zeros_stay_zeros(kind: Kind) -> None:
    made = Format(kind, 64 if kind.four_bit else 0, double=False)
    assert not round_trip(torch.zeros(4, 64), made).values.any()
