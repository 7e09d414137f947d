"""Where a run's memory is heading: growth from step to step, and longer batches, held against what the card has."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from vramplan.units import MIB, human

#: Steps over which memory must have grown every time before growth is called a trend. Between steps a run's tensors are
#: the same from the second step on; what a log keeps, or a data loader, moves it up and down.
STEPS = 8
#: Growth per step below which nothing is said: a list of losses kept on the card grows by 512 bytes a step.
SMALLEST = MIB // 8


@dataclass(frozen=True, slots=True)
class Reading:
    """The allocator after a step; bytes."""

    allocated: int
    """Held by tensors now, between steps."""
    peak: int
    """The most held by tensors since the process began."""
    reserved: int
    """The most held by the allocator since the process began."""


@dataclass(slots=True)
class Trend:
    """Follows one run; `room` is what the allocator can have in all."""

    room: int
    longest: int = 0
    """Tokens of the largest micro-batch that may come; 0 where that is not known."""
    _steps: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=STEPS + 1))
    _highs: list[tuple[int, int]] = field(default_factory=list)
    """Tokens and peak, whenever both were higher than before."""
    _told_growth: int = 0
    """Steps that were left when growth was told last; 0 before."""
    _told_tokens: int = 0

    def add(self, step: int, reading: Reading, tokens: int) -> list[str]:
        """What is to be said after a step whose largest micro-batch had `tokens` (0: not seen); most often nothing."""
        self._steps.append((step, reading.allocated))
        return [*self._growth(step, reading), *self._batches(step, reading, tokens)]

    def _growth(self, step: int, reading: Reading) -> list[str]:
        """Memory between steps that grows every time runs out at a step that can be told."""
        if len(self._steps) <= STEPS or any(b <= a for (_, a), (_, b) in pairwise(self._steps)):
            return []
        (first, before), (last, now) = self._steps[0], self._steps[-1]
        growth = (now - before) // max(last - first, 1)
        if growth < SMALLEST:
            return []
        left = max(self.room - reading.peak, 0) // growth
        if self._told_growth and left > self._told_growth // 2:  # told again when half of the way is gone
            return []
        self._told_growth = max(left, 1)
        return [
            f"memory between steps grows by {human(growth)} a step ({STEPS} steps in a row): out of memory around step"
            f" {step + left:,}, {left:,} from now; something keeps tensors: outputs, losses without .item(), a cache"
        ]

    def _batches(self, step: int, reading: Reading, tokens: int) -> list[str]:
        """A larger micro-batch raises the peak; two of them tell by how much a token does."""
        if not tokens or (self._highs and (tokens <= self._highs[-1][0] or reading.peak <= self._highs[-1][1])):
            return []
        self._highs.append((tokens, reading.peak))
        if len(self._highs) < 2 or tokens >= self.longest:
            return []
        (fewer, lower), (more, higher) = self._highs[0], self._highs[-1]
        per_token = (higher - lower) / (more - fewer)
        expected = higher + round(per_token * (self.longest - more))
        if expected <= self.room or tokens < 1.1 * self._told_tokens:  # told again when a tenth nearer
            return []
        self._told_tokens = tokens
        limit = more + int(max(self.room - higher, 0) / per_token)
        return [
            f"step {step:,} had the largest micro-batch so far ({more:,} tokens) and took {human(higher)}; at"
            f" {human(round(per_token))} a token the longest one ({self.longest:,} tokens) would take {human(expected)}"
            f" of {human(self.room)}: out of memory from about {limit:,} tokens on"
        ]
