"""What quantisation does to weights: bitsandbytes' own round trip on the CPU, and the errors that it leaves."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vramplan.quant.formats import Format, Kind
from vramplan.quant.roundtrip import round_trip
from vramplan.quant.weights import Source

if TYPE_CHECKING:
    import torch

#: Elements whose errors are summed in fp64 at a time: 32 MiB.
_PIECE = 2**22


@dataclass(frozen=True, slots=True)
class Errors:
    """How far the weights of one format are from the original ones, over one tensor or many."""

    count: int
    """Weights."""
    squared: float
    """Sum of squared errors."""
    power: float
    """Sum of squared weights."""
    worst: float
    """The largest error of any weight."""
    largest: float
    """The largest weight."""
    codes: tuple[int, ...]
    """How many weights have each of the format's levels, ascending."""

    @property
    def mean_squared(self) -> float:
        """Mean squared error."""
        return self.squared / self.count

    @property
    def relative(self) -> float:
        """Mean squared error as a share of the mean squared weight; 0 for weights that are all 0."""
        return self.squared / self.power if self.power else 0.0

    @property
    def decibels(self) -> float | None:
        """Signal to noise, 10 log10(power / squared error); None when there is no error."""
        return 10 * math.log10(self.power / self.squared) if self.squared and self.power else None

    def plus(self, other: "Errors") -> "Errors":
        """Both sets of weights as one."""
        return Errors(
            self.count + other.count,
            self.squared + other.squared,
            self.power + other.power,
            max(self.worst, other.worst),
            max(self.largest, other.largest),
            tuple(a + b for a, b in zip(self.codes, other.codes, strict=True)),
        )

    def to_json(self) -> dict[str, Any]:
        """The figures; `snr_db` is missing when there is no error."""
        body: dict[str, Any] = {
            "weights": self.count,
            "mean_squared_error": self.mean_squared,
            "relative_error": self.relative,
            "max_error": self.worst,
            "max_weight": self.largest,
            "codes": list(self.codes),
        }
        return body if self.decibels is None else body | {"snr_db": self.decibels}


@dataclass(frozen=True)
class Tried:
    """One format tried on all weights of a source."""

    format: Format
    total: Errors
    single: Errors | None
    """The same without double quantisation; None for a format that has none."""
    tensors: tuple[tuple[str, Errors], ...]
    """Each tensor of a file by itself."""

    @property
    def added(self) -> float | None:
        """The share by which double quantisation raises the mean squared error; None without it."""
        if self.single is None or not self.single.squared:
            return None
        return self.total.squared / self.single.squared - 1

    def to_json(self) -> dict[str, Any]:
        """Figures of all weights, and of each tensor of a file."""
        body = self.total.to_json()
        if self.added is not None:
            body["added_by_double"] = self.added
        if len(self.tensors) > 1:
            body["tensors"] = [{"name": name, **found.to_json()} for name, found in self.tensors]
        return body


def try_formats(source: Source, wanted: Iterable[Format]) -> tuple[Tried, ...]:
    """Every format on every tensor of the source, which is read once and one tensor at a time."""
    chosen = tuple(wanted)
    kept: dict[Format, list[tuple[str, Errors]]] = {made: [] for made in _with_singles(chosen)}
    for name, weights in source.tensors():
        for made, results in kept.items():
            results.append((name, errors(weights, made)))
    totals = {made: _sum(found for _, found in results) for made, results in kept.items()}
    return tuple(
        Tried(made, totals[made], totals[_single(made)] if made.double else None, tuple(kept[made])) for made in chosen
    )


def _with_singles(chosen: tuple[Format, ...]) -> tuple[Format, ...]:
    """The formats, and for each with double quantisation the one without."""
    return tuple(dict.fromkeys((*chosen, *(_single(made) for made in chosen if made.double))))


def _single(made: Format) -> Format:
    return Format(made.kind, made.block, double=False)


def _sum(found: Iterable[Errors]) -> Errors:
    total, *rest = found
    for one in rest:
        total = total.plus(one)
    return total


def errors(weights: "torch.Tensor", made: Format) -> Errors:
    """The errors of one matrix in one format, against its values in fp32."""
    import torch

    back = round_trip(weights, made)
    squared = power = worst = largest = 0.0
    original, found = weights.flatten(), back.values.flatten()
    for start in range(0, weights.numel(), _PIECE):
        exact = original[start : start + _PIECE].double()
        difference = found[start : start + _PIECE].double() - exact
        squared += float(difference.square().sum())
        power += float(exact.square().sum())
        worst = max(worst, float(difference.abs().max()))
        largest = max(largest, float(exact.abs().max()))
    counts = torch.bincount(back.codes.flatten(), minlength=back.levels)
    return Errors(weights.numel(), squared, power, worst, largest, _by_level(made.kind, counts.tolist()))


def _by_level(kind: Kind, counts: list[int]) -> tuple[int, ...]:
    """Counts of codes in ascending order of what they stand for: fp4's codes are bit patterns, sign first."""
    if kind is not Kind.FP4:
        return tuple(counts)
    from vramplan.quant.levels import FP4_MAGNITUDES

    values = [*FP4_MAGNITUDES, *(-value for value in FP4_MAGNITUDES)]
    # of the two zeros, pattern 0 is +0 and 8 is -0, which comes first
    order = sorted(range(16), key=lambda code: (values[code], -code))
    return tuple(counts[code] for code in order)
