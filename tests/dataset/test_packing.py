from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramplan.dataset.packing import PIECE, Packer, Packing, pack


def best_fit_decreasing(lengths: list[int], seq: int) -> list[int]:
    """The textbook's: the longest first, into the fullest row that has room, else into a new row."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        room = [i for i, filled in enumerate(rows) if filled + length <= seq]
        if room:
            rows[max(room, key=lambda i: rows[i])] += length
        else:
            rows.append(length)
    return rows


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(8, 30))
def test_bfd_is_best_fit_decreasing_of_truncated_samples(lengths: list[int], seq: int) -> None:
    expected = best_fit_decreasing([min(length, seq) for length in lengths], seq)
    assert Counter(pack(lengths, Packing.BFD, seq)) == Counter(expected)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(8, 30))
def test_bfd_split_loses_nothing(lengths: list[int], seq: int) -> None:
    fragments = [min(seq, length - start) for length in lengths for start in range(0, length, seq)]
    rows = list(pack(lengths, Packing.BFD_SPLIT, seq))
    assert Counter(rows) == Counter(best_fit_decreasing(fragments, seq))
    assert sum(rows) == sum(lengths)


@pytest.mark.parametrize(
    ("strategy", "rows"),
    [  # the example of TRL's `pack_dataset`: samples of 5, 2, 3 and 1 tokens in rows of 4
        (Packing.BFD, [4, 4, 2]),
        (Packing.BFD_SPLIT, [4, 4, 3]),
        (Packing.WRAPPED, [4, 4, 3]),
    ],
)
def test_the_example_of_trl(strategy: Packing, rows: list[int]) -> None:
    assert sorted(pack([5, 2, 3, 1], strategy, 4), reverse=True) == rows


def test_pieces_are_packed_by_themselves() -> None:
    packer = Packer(Packing.WRAPPED, 1024)
    for _ in range(PIECE + 1):
        packer.add(3)
    # 3,000 tokens are two full rows and one of 952; the sample of the next piece stays alone
    assert packer.rows().counts == ((3, 1), (952, 1), (1024, 2))


def test_samples_that_fill_a_row_exactly_leave_no_row_without_room_for_reuse() -> None:
    assert sorted(pack([8, 8, 4, 4, 1], Packing.BFD, 8)) == [1, 8, 8, 8]
