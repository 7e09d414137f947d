"""Lengths in bins of equal width, the last of which takes the long tail."""

from dataclasses import dataclass
from fractions import Fraction

from vramplan.dataset.lengths import Lengths

_BINS = 12


@dataclass(frozen=True, slots=True)
class Bin:
    """Samples of `low` to `high` tokens, both included."""

    low: int
    high: int
    samples: int


def histogram(lengths: Lengths) -> tuple[Bin, ...]:
    """At most a dozen bins as wide as needed for 99 % of the samples, and one for what is longer.

    The width is a power of two, or half as much again, so that the edges are round numbers of tokens.
    """
    most = lengths.percentile(Fraction(99))
    width = _width(lengths.shortest, most)
    low = lengths.shortest // width * width
    bins: list[Bin] = []
    while low <= most:
        bins.append(_bin(lengths, max(low, 1), low + width - 1))
        low += width
    if lengths.longest >= low:
        bins.append(_bin(lengths, low, lengths.longest))
    return tuple(bins)


def _bin(lengths: Lengths, low: int, high: int) -> Bin:
    return Bin(low, high, lengths.longer(low - 1) - lengths.longer(high))


def _width(low: int, high: int) -> int:
    power = 1
    while True:
        for width in (power, power * 3 // 2) if power > 1 else (1,):
            if high // width - low // width < _BINS:
                return width
        power *= 2
