"""How long the samples of a data set are: a count for each length, whatever the size of the file."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Cut:
    """What a limit on the length takes away."""

    samples: int
    """Samples that are longer."""
    truncated: int
    """Tokens lost when those are truncated."""
    dropped: int
    """Tokens lost when those are dropped."""


@dataclass(frozen=True)
class Lengths:
    """How many samples there are of each length."""

    counts: tuple[tuple[int, int], ...]
    """Length and number of samples, lengths rising, each once."""

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> "Lengths":
        """From counts in any order."""
        return cls(tuple(sorted(counts.items())))

    @cached_property
    def distinct(self) -> tuple[int, ...]:
        """The lengths, rising."""
        return tuple(length for length, _ in self.counts)

    @cached_property
    def _up_to(self) -> tuple[int, ...]:
        """For each distinct length, samples that are no longer."""
        return tuple(accumulate(count for _, count in self.counts))

    @property
    def samples(self) -> int:
        """How many."""
        return self._up_to[-1] if self.counts else 0

    @cached_property
    def tokens(self) -> int:
        """Of all samples."""
        return sum(length * count for length, count in self.counts)

    @property
    def shortest(self) -> int:
        """Tokens of the shortest sample."""
        return self.counts[0][0]

    @property
    def longest(self) -> int:
        """Tokens of the longest sample."""
        return self.counts[-1][0]

    def longer(self, length: int) -> int:
        """How many samples are longer than `length`."""
        place = bisect_right(self.distinct, length)
        return self.samples - (self._up_to[place - 1] if place else 0)

    def percentile(self, percent: Fraction) -> int:
        """The shortest length that at least `percent` of the samples do not exceed (nearest rank)."""
        rank = max(-(-percent * self.samples // 100), 1)
        return self.distinct[bisect_left(self._up_to, rank)]

    def truncated(self, longest: int) -> "Lengths":
        """The lengths after every sample is cut to `longest` tokens."""
        kept = {length: count for length, count in self.counts if length <= longest}
        if beyond := self.longer(longest):
            kept[longest] = kept.get(longest, 0) + beyond
        return Lengths.of(kept)

    def cut(self, longest: int) -> Cut:
        """What is lost when no sample may be longer than `longest` tokens."""
        beyond = [(length, count) for length, count in self.counts if length > longest]
        return Cut(
            samples=sum(count for _, count in beyond),
            truncated=sum((length - longest) * count for length, count in beyond),
            dropped=sum(length * count for length, count in beyond),
        )
