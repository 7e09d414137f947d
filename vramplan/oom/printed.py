"""Sizes as PyTorch prints them: two decimals of a unit, so each stands for an interval of bytes."""

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from vramplan.units import GIB, KIB, MIB, human

#: c10/cuda/CUDACachingAllocator.cpp `format_size` (torch 2.0 to 2.13) and its kin: bytes up to 1,024 of them, then two
#: decimals of the unit in which the number is at most 1,024.
_UNITS = {"bytes": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
#: For the messages' own patterns.
SIZE = r"\d{1,20}(?:\.\d{1,6})? (?:bytes|B|KiB|MiB|GiB)"
_PARTS = re.compile(r"(\d{1,20}(?:\.\d{1,6})?) (bytes|B|KiB|MiB|GiB)")


@dataclass(frozen=True, slots=True)
class Printed:
    """A number of bytes of which only a rounded form may be known."""

    low: int
    high: int
    """Both ends are possible."""

    @classmethod
    def exact(cls, size: int) -> "Printed":
        """A number that is known to the byte."""
        return cls(size, size)

    @classmethod
    def read(cls, text: str) -> "Printed":
        """The interval that `2.00 GiB` stands for; ValueError for anything else."""
        match = _PARTS.fullmatch(" ".join(text.split()))
        if match is None:
            raise ValueError(text)
        number, factor = Decimal(match[1]), _UNITS[match[2]]
        half = 0 if factor == 1 else Decimal(1).scaleb(int(number.as_tuple().exponent)) / 2
        low = ((number - half) * factor).to_integral_value(ROUND_CEILING)
        return cls(max(int(low), 0), int(((number + half) * factor).to_integral_value(ROUND_FLOOR)))

    @property
    def bytes(self) -> int:
        """The middle of the interval: the number to show and to count with."""
        return (self.low + self.high) // 2

    def covers(self, size: int) -> bool:
        """Whether it may be `size` bytes."""
        return self.low <= size <= self.high

    def __add__(self, other: "Printed") -> "Printed":
        return Printed(self.low + other.low, self.high + other.high)

    def less(self, other: "Printed") -> "Printed":
        """The difference, 0 at the least."""
        return Printed(max(self.low - other.high, 0), max(self.high - other.low, 0))

    def __str__(self) -> str:
        return human(self.bytes)
