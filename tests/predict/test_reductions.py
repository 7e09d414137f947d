"""The buffer of CUDA's sum over rows; the first two sizes are what PyTorch's CUDA build asked its allocator for."""

import pytest

from vramplan.predict.reductions import row_sum_buffer


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        # RTX 4090: vectors of 4, blocks of 32 x 4 threads. 2,331 / 4 = 583 values for each thread, 896 / 4 / 32 = 7
        # blocks abreast, room for 128 x 12: min(1536 / 7, 583 / 16) = 37 blocks above each other
        (2331, 896, 4 * 896 * 37 * 32 * 4),
        # 38 blocks abreast: min(1536 / 38 = 40.4, 37), again 37
        (2331, 4864, 4 * 4864 * 37 * 32 * 4),
        (1020, 896, 0),  # 255 values each: one block does its columns alone
        (1021, 896, 4 * 896 * 16 * 32 * 4),  # 256 values: 16 blocks of 16
        (4096, 200_000, 0),  # 1,563 blocks abreast fill the card
    ],
)
def test_it_is_what_the_source_says(rows: int, columns: int, size: int) -> None:
    assert row_sum_buffer(rows, columns, (8, 9), 128) == size


def test_a_smaller_card_has_room_for_fewer_blocks() -> None:
    # T4: 1,024 threads on each of 40 multiprocessors, 320 blocks of 128; 4,096 / 4 / 32 = 32 abreast: 10 above another
    assert row_sum_buffer(2331, 4096, (7, 5), 40) == 4 * 4096 * 10 * 32 * 4
