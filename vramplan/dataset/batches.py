"""How long the batches of an epoch are, in closed form: order statistics of draws without replacement.

A batch is padded to its longest sample. Samplers here see samples as they are after truncation. Lengths of batches are
asked for as "longer than": how many of an epoch's, or whether one among the first few.
"""

from math import exp, expm1, lgamma
from typing import Protocol

from vramplan.dataset.lengths import Lengths


class Batches(Protocol):
    """The micro-batches of an epoch, as a sampler makes them."""

    @property
    def count(self) -> int:
        """Micro-batches of an epoch, the last one of which may have fewer samples."""

    def longer(self, length: int) -> float:
        """Expected number of an epoch's micro-batches that hold a sample of more than `length` tokens."""

    def samples_longer(self, length: int) -> float:
        """Expected number of samples in those micro-batches."""

    def met_within(self, count: int, length: int) -> float:
        """Probability that one of the first `count` micro-batches of an epoch is longer than `length`."""

    def until(self, length: int) -> float:
        """Expected number of micro-batches up to and with the first that is longer; only where some sample is."""


def log_choose(n: int, k: int) -> float:
    """Natural logarithm of the binomial coefficient."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def miss(total: int, marked: int, draws: int) -> float:
    """Probability that none of `marked` among `total` is drawn in `draws` draws without replacement."""
    if total - marked < draws:
        return 0.0
    return exp(log_choose(total - marked, draws) - log_choose(total, draws))


def hit(total: int, marked: int, draws: int) -> float:
    """Probability that one of `marked` among `total` is drawn; exact where it is tiny, too."""
    if total - marked < draws:
        return 1.0
    return -expm1(log_choose(total - marked, draws) - log_choose(total, draws))


class RandomBatches:
    """Uniformly shuffled samples, cut into batches (torch's RandomSampler; the last batch is kept, as Trainer does)."""

    def __init__(self, lengths: Lengths, batch: int) -> None:
        self._lengths = lengths
        self._batch = batch

    @property
    def count(self) -> int:
        """Micro-batches of an epoch."""
        return -(-self._lengths.samples // self._batch)

    def longer(self, length: int) -> float:
        """Each full batch alone is a uniform draw of `batch` samples, and expectations add."""
        return self._sum(length, 1.0, 1.0)

    def samples_longer(self, length: int) -> float:
        """The same, weighted with the batches' sizes."""
        return self._sum(length, self._batch, self._lengths.samples % self._batch)

    def _sum(self, length: int, full: float, last: float) -> float:
        samples, marked = self._lengths.samples, self._lengths.longer(length)
        whole, rest = divmod(samples, self._batch)
        found = whole * full * hit(samples, marked, self._batch)
        return found + (last * hit(samples, marked, rest) if rest else 0.0)

    def met_within(self, count: int, length: int) -> float:
        """The first batches together are one larger draw."""
        draws = min(count * self._batch, self._lengths.samples)
        return hit(self._lengths.samples, self._lengths.longer(length), draws)

    def until(self, length: int) -> float:
        """The sum over i of the probability that the first i batches have none."""
        samples, marked = self._lengths.samples, self._lengths.longer(length)
        if marked * self._batch * 1000 < samples:
            # The first such sample is expected at (samples + 1) / (marked + 1), and stands anywhere in its batch:
            # within marked * batch / (12 * samples) < 0.0001 batches of the sum, which would have many terms.
            return ((samples + 1) / (marked + 1) + (self._batch - 1) / 2) / self._batch
        found = 0.0
        for drawn in range(0, samples, self._batch):
            term = miss(samples, marked, drawn)
            found += term
            if term < 1e-15:
                break
        return found
