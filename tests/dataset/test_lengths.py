from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vramplan.dataset.histogram import histogram
from vramplan.dataset.lengths import Cut, Lengths

SAMPLES = st.lists(st.integers(1, 5000), min_size=1, max_size=80)


def lengths_of(samples: list[int]) -> Lengths:
    return Lengths.of({length: samples.count(length) for length in samples})


@given(SAMPLES, st.integers(0, 5001))
def test_counts_answer_as_the_samples_would(samples: list[int], limit: int) -> None:
    lengths = lengths_of(samples)
    assert (lengths.samples, lengths.tokens) == (len(samples), sum(samples))
    assert (lengths.shortest, lengths.longest) == (min(samples), max(samples))
    beyond = [length for length in samples if length > limit]
    assert lengths.longer(limit) == len(beyond)
    assert lengths.cut(limit) == Cut(len(beyond), sum(beyond) - limit * len(beyond), sum(beyond))
    if limit:
        assert lengths.truncated(limit) == lengths_of([min(length, limit) for length in samples])


@given(SAMPLES, st.fractions(0, 100))
def test_a_percentile_is_the_first_that_enough_do_not_exceed(samples: list[int], percent: Fraction) -> None:
    found = lengths_of(samples).percentile(percent)
    assert found in samples
    assert sum(length <= found for length in samples) * 100 >= percent * len(samples)
    assert sum(length < found for length in samples) * 100 < percent * len(samples) or found == min(samples)


@given(SAMPLES)
def test_bins_hold_every_sample_once(samples: list[int]) -> None:
    bins = histogram(lengths_of(samples))
    assert sum(found.samples for found in bins) == len(samples)
    assert len(bins) <= 13
    for found in bins:
        assert found.samples == sum(found.low <= length <= found.high for length in samples)
    assert all(one.high + 1 == other.low for one, other in pairwise(bins))
