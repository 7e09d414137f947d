"""Derived levels against bitsandbytes' own tables."""

from itertools import pairwise

import pytest
from bitsandbytes import functional

from vramplan.quant.levels import fp4_levels, int4_levels, nf4_levels, plain_quantiles

#: One unit in the last place of an fp32 number near 1: the tables are fp32, our levels are not.
ULP = 2**-23


def test_nf4_is_bitsandbytes_table() -> None:
    assert nf4_levels() == pytest.approx(functional.get_4bit_type("nf4", "cpu").tolist(), abs=ULP)


def test_nf4_has_an_exact_zero_and_is_not_symmetric() -> None:
    levels = nf4_levels()
    assert (levels[0], levels[7], levels[15]) == (-1.0, 0.0, 1.0)
    assert sum(level < 0 for level in levels) == 7
    assert levels[6] + levels[8] == pytest.approx(-0.01147, abs=1e-5)


def test_plain_quantiles_are_symmetric_without_a_zero_and_not_nf4() -> None:
    levels = plain_quantiles()
    assert levels == pytest.approx([-level for level in reversed(levels)])
    assert 0.0 not in levels
    assert max(abs(a - b) for a, b in zip(levels, nf4_levels(), strict=True)) > 0.04


def test_fp4_is_bitsandbytes_table() -> None:
    assert fp4_levels() == pytest.approx(sorted(functional.get_4bit_type("fp4", "cpu").tolist()), abs=ULP)


def test_the_uniform_control_is_evenly_spaced_around_zero() -> None:
    levels = int4_levels()
    assert (len(levels), levels[0], levels[7], levels[14]) == (15, -1.0, 0.0, 1.0)
    assert {round(b - a, 12) for a, b in pairwise(levels)} == {round(1 / 7, 12)}
