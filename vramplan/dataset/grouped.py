"""Batches of similar lengths, in closed form: what transformers' `group_by_length` makes of an epoch."""

from functools import cached_property
from math import ceil, exp, lgamma

from vramplan.dataset.batches import log_choose
from vramplan.dataset.lengths import Lengths


class GroupedBatches:
    """`LengthGroupedSampler` (transformers 5.17 trainer_pt_utils.py, `get_length_grouped_indices`).

    Shuffled samples are cut into mega-batches, each sorted from long to short. Then the longest sample of all changes
    places with the very first, so that the first batch is the longest of the epoch.
    """

    def __init__(self, lengths: Lengths, batch: int, grad_accum: int) -> None:
        self._lengths = lengths
        self._batch = batch
        together = batch * grad_accum  # what Trainer hands to the sampler as its batch size
        self._mega = max(min(lengths.samples // (together * 4), 50), 1) * together
        self._longest = lengths.longer(lengths.longest - 1)  # samples of the greatest length

    @property
    def count(self) -> int:
        """Micro-batches of an epoch: mega-batches are multiples of a batch, so only the last one is cut short."""
        return -(-self._lengths.samples // self._batch)

    def longer(self, length: int) -> float:
        """In a mega-batch with h longer samples, ceil(h / batch) of its batches hold one."""
        return self._expected(length, by_sample=False)

    def samples_longer(self, length: int) -> float:
        """The same, weighted with the batches' sizes."""
        return self._expected(length, by_sample=True)

    def met_within(self, count: int, length: int) -> float:
        """The first batch is the longest."""
        return float(count > 0 and self._lengths.longer(length) > 0)

    def until(self, length: int) -> float:
        """The first batch."""
        return 1.0

    def _expected(self, length: int, *, by_sample: bool) -> float:
        marked = self._lengths.longer(length)
        if not marked:
            return 0.0
        whole, rest = divmod(self._lengths.samples, self._mega)
        found = whole * self._in_mega(self._mega, marked, by_sample=by_sample)
        found += self._in_mega(rest, marked, by_sample=by_sample)
        batches, in_samples = self._after_the_swap(marked)
        return found + (in_samples if by_sample else batches)

    def _in_mega(self, size: int, marked: int, *, by_sample: bool) -> float:
        """Expected batches (or samples in batches) of one mega-batch that hold a marked sample."""
        found = 0.0
        for drawn, probability in _hypergeometric(self._lengths.samples, marked, size):
            batches = ceil(drawn / self._batch)
            found += probability * (min(batches * self._batch, size) if by_sample else batches)
        return found

    def _after_the_swap(self, marked: int) -> tuple[float, float]:
        """Expected marked batches, and samples in them, that there are more because the longest went to the front.

        Something changes when the first mega-batch has no marked sample: its first batch becomes marked. The first
        batch of where the longest comes from (the first mega-batch that has one of the greatest length) stays marked
        unless the longest was alone there. Worked out by placing the marked samples, the longest of them first.
        """
        samples, longest = self._lengths.samples, self._longest
        behind = samples - self._mega
        if self._batch == 1 or behind < marked:
            return 0.0, 0.0
        rest, others = behind % self._mega, marked - longest
        none_in_front = _all_in(behind, marked, samples)
        alone = self._first * longest * self._mega / samples
        alone *= _all_in(behind - self._mega - (longest - 1), others, samples - longest)
        # Where the longest comes from the last, shorter mega-batch, its batch has fewer samples than the first.
        alone_last = rest / samples * _all_in(behind - rest, others, samples - 1) if longest == 1 else 0.0
        left = self._batch * alone + min(self._batch, rest) * alone_last
        return none_in_front - alone - alone_last, self._batch * none_in_front - left

    @cached_property
    def _first(self) -> float:
        """Summed over the full mega-batches but the first: that the other longest samples all lie behind it."""
        samples = self._lengths.samples
        return sum(_all_in(places, self._longest - 1, samples - 1) for places in self._places_behind)

    @property
    def _places_behind(self) -> range:
        """For each full mega-batch but the first, how many samples come after it."""
        behind = self._lengths.samples - self._mega
        return range(behind - self._mega, -1, -self._mega)


def _all_in(room: int, items: int, total: int) -> float:
    """Probability that `items` samples, placed at random in `total` places, all lie in `room` of them."""
    if items > room:
        return 0.0
    return exp(lgamma(room + 1) - lgamma(room - items + 1) - lgamma(total + 1) + lgamma(total - items + 1))


def _hypergeometric(total: int, marked: int, draws: int) -> list[tuple[int, float]]:
    """How many of `marked` among `total` are drawn, and how probable each number is.

    From the mode outwards by the ratio of neighbours, until a probability is less than 1e-16 of the mode's.
    """
    low, high = max(0, draws + marked - total), min(draws, marked)
    mode = min(max((draws + 1) * (marked + 1) // (total + 2), low), high)
    top = exp(log_choose(marked, mode) + log_choose(total - marked, draws - mode) - log_choose(total, draws))
    found = [(mode, top)]
    number, value = mode, top
    while number < high and value > top * 1e-16:
        value *= (marked - number) * (draws - number) / ((number + 1) * (total - marked - draws + number + 1))
        number += 1
        found.append((number, value))
    number, value = mode, top
    while number > low and value > top * 1e-16:
        value *= number * (total - marked - draws + number) / ((marked - number + 1) * (draws - number + 1))
        number -= 1
        found.append((number, value))
    return found
