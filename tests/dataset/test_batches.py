"""Batch lengths in closed form against every order that the samples can have."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import permutations
from unittest.mock import patch

import pytest
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from vramplan.dataset.batches import Batches, RandomBatches
from vramplan.dataset.grouped import GroupedBatches
from vramplan.dataset.lengths import Lengths

Order = Callable[[Sequence[int]], list[int]]


def epochs(samples: Sequence[int], batch: int, order: Order = list) -> Iterator[list[list[int]]]:
    """The batches of every possible epoch, all equally likely; `order` is what the sampler does with a permutation."""
    for shuffled in set(permutations(samples)):
        ordered = order(shuffled)
        yield [ordered[i : i + batch] for i in range(0, len(ordered), batch)]


def check(found: Batches, samples: Sequence[int], batch: int, order: Order = list) -> None:
    """Every number that `found` gives is the mean over all epochs, in exact fractions."""
    every = list(epochs(samples, batch, order))
    assert found.count == len(every[0])
    for length in range(min(samples) - 1, max(samples) + 1):
        longer = [[max(b) > length for b in epoch] for epoch in every]
        sizes = [[len(b) for b in epoch] for epoch in every]
        mean = Fraction(sum(map(sum, longer)), len(every))
        weighted = Fraction(
            sum(
                s for flags, size in zip(longer, sizes, strict=True) for yes, s in zip(flags, size, strict=True) if yes
            ),
            len(every),
        )
        assert found.longer(length) == pytest.approx(float(mean), rel=1e-12, abs=1e-12)
        assert found.samples_longer(length) == pytest.approx(float(weighted), rel=1e-12, abs=1e-12)
        for first in range(found.count + 1):
            share = Fraction(sum(any(flags[:first]) for flags in longer), len(every))
            assert found.met_within(first, length) == pytest.approx(float(share), rel=1e-12, abs=1e-12)
        if length < max(samples):
            until = Fraction(sum(flags.index(True) + 1 for flags in longer), len(every))
            assert found.until(length) == pytest.approx(float(until), rel=1e-12)


SETS = [(5, 3, 9, 1, 7, 8), (5, 5, 9, 9, 1, 1, 3), (1, 1, 1, 3, 3, 3, 9), (4, 4, 4, 4, 4, 4), (1, 1, 1, 1, 1, 9, 9, 9)]


@pytest.mark.parametrize("samples", SETS, ids=str)
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_random_batches_are_the_mean_over_all_orders(samples: tuple[int, ...], batch: int) -> None:
    check(RandomBatches(Lengths.of(Counter(samples)), batch), samples, batch)


@pytest.mark.parametrize("samples", SETS, ids=str)
@pytest.mark.parametrize(("batch", "accum"), [(1, 1), (1, 2), (2, 1), (3, 1), (2, 2), (4, 1)])
def test_grouped_batches_are_the_mean_over_all_orders_of_the_real_sampler(
    samples: tuple[int, ...], batch: int, accum: int
) -> None:
    def order(shuffled: Sequence[int]) -> list[int]:
        """What transformers makes of this permutation."""
        with patch("torch.randperm", lambda n, generator=None: torch.arange(n)):
            return [shuffled[i] for i in get_length_grouped_indices(shuffled, batch * accum)]

    check(GroupedBatches(Lengths.of(Counter(samples)), batch, accum), samples, batch, order)
