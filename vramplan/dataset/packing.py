"""Packing samples into rows of at most `seq` tokens, as TRL's `pack_dataset` does it.

TRL 1.16 data_utils.py: `_pack_bfd` (best fit decreasing: samples are taken from the longest down, each goes into the
row with the least room that is enough) and `_pack_wrapped` (samples are joined and cut). `datasets.Dataset.map` hands
1,000 samples at a time to them, in the data set's order, so rows never hold samples of two such pieces.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum

from vramplan.dataset.lengths import Lengths

#: `batch_size` of `datasets.Dataset.map`, which TRL leaves at its default.
PIECE = 1000


class Packing(StrEnum):
    """TRL's packing strategies, in its spelling."""

    BFD = "bfd"  # samples longer than a row are truncated
    BFD_SPLIT = "bfd_split"  # they are split into pieces first
    WRAPPED = "wrapped"  # rows are cut wherever they are full

    @property
    def splits(self) -> bool:
        """Whether samples longer than a row lose nothing."""
        return self is not Packing.BFD


class Packer:
    """Takes samples' lengths in the data set's order, and counts the lengths of the rows."""

    def __init__(self, strategy: Packing, seq: int) -> None:
        self._strategy = strategy
        self._seq = seq
        self._piece: list[int] = []
        self._rows: Counter[int] = Counter()

    def add(self, length: int) -> None:
        """One more sample."""
        self._piece.append(length)
        if len(self._piece) == PIECE:
            self._pack()

    def rows(self) -> Lengths:
        """The lengths of all rows."""
        self._pack()
        return Lengths.of(self._rows)

    def _pack(self) -> None:
        self._rows.update(pack(self._piece, self._strategy, self._seq))
        self._piece.clear()


def pack(lengths: Iterable[int], strategy: Packing, seq: int) -> Iterable[int]:
    """The lengths of the rows that samples of one piece become."""
    if strategy is Packing.WRAPPED:
        return _split(sum(lengths), seq)
    if strategy is Packing.BFD:
        return _best_fit((min(length, seq) for length in lengths), seq)
    return _best_fit((part for length in lengths for part in _split(length, seq)), seq)


def _split(tokens: int, seq: int) -> Iterator[int]:
    """Full rows, and one for the rest."""
    yield from (seq for _ in range(tokens // seq))
    if tokens % seq:
        yield tokens % seq


def _best_fit(lengths: Iterable[int], seq: int) -> list[int]:
    """Best fit decreasing; which of several rows with the same room takes a sample changes no row's length."""
    spaces: list[int] = []  # what is left in each row, rising
    for length in sorted(lengths, reverse=True):
        place = bisect_left(spaces, length)
        insort(spaces, (spaces.pop(place) if place < len(spaces) else seq) - length)
    return [seq - space for space in spaces]
