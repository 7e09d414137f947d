"""The values that a code of each format stands for, in [-1, 1], derived from their definitions without torch."""

from statistics import NormalDist

#: bitsandbytes 0.50.2 functional.py create_normal_map: the outermost quantile of NF4 (QLoRA, arXiv 2305.14314, app. E).
NF4_OFFSET = 0.9677083
#: functional.py get_4bit_type: magnitudes of fp4's eight bit patterns, two exponent bits and one of fraction. The
#: subnormal 0b001 is 0.0625 in the table and the kernels, though `create_fp8_map` would give 0.25 on this scale.
FP4_MAGNITUDES = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)


def nf4_levels() -> tuple[float, ...]:
    """NF4's 16 values: quantiles of the normal distribution, 7 below an exact zero and 8 above it.

    The half above zero has one value more, so the table is not symmetric: code 6 is -0.0911, code 8 is 0.0796.
    """
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in _spaced(NF4_OFFSET, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in _spaced(NF4_OFFSET, 0.5, 8)[:-1]]
    largest = max(above)
    return tuple(sorted(value / largest for value in (*below, 0.0, *above)))


def plain_quantiles() -> tuple[float, ...]:
    """16 evenly spaced quantiles of the normal distribution, scaled to [-1, 1]: symmetric and without a zero.

    Not NF4, though often printed as its table.
    """
    values = [NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)]
    return tuple(value / values[-1] for value in values)


def fp4_levels() -> tuple[float, ...]:
    """fp4's 16 values in ascending order; zero twice, once for each sign."""
    largest = max(FP4_MAGNITUDES)
    return tuple(sorted(sign * value / largest for sign in (-1, 1) for value in FP4_MAGNITUDES))


def int4_levels() -> tuple[float, ...]:
    """Evenly spaced values, the control: -7/7 to 7/7, of whose 16 codes one is not used."""
    return tuple(i / 7 for i in range(-7, 8))


def _spaced(first: float, last: float, count: int) -> list[float]:
    """`count` evenly spaced numbers from `first` to `last`, both included."""
    return [first + (last - first) * i / (count - 1) for i in range(count)]
