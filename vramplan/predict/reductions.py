"""What CUDA's sum over rows takes inside itself: a buffer where several blocks of threads add up the same columns.

The gradient of what was broadcast over tokens (a norm's weight, a bias, DoRA's magnitudes) is such a sum.
"""

#: aten/src/ATen/native/cuda/Reduce.cuh (torch 2.13): threads of a block, values that a thread of a split sum has.
_THREADS, _FEWEST_VALUES, _MOST_VALUES = 512, 16, 256
_WARP = 32
#: It adds up in fp32.
_ACCUMULATED = 4
#: CUDA programming guide, technical specifications per compute capability: threads per multiprocessor, where not 2048.
_RESIDENT_THREADS = {(7, 5): 1024, (8, 6): 1536, (8, 7): 1536, (8, 9): 1536, (12, 0): 1536}


def row_sum_buffer(rows: int, columns: int, capability: tuple[int, int], multiprocessors: int) -> int:
    """Bytes of the buffer for the sum of a contiguous [rows, columns]; 0 where every column is one block's.

    `setReduceConfig` and `ReduceConfig::global_memory_size`: columns in vectors of up to four, as many warps of each
    block on other rows as fit, and blocks on more rows while the card has room.
    """
    vector = next(size for size in (4, 2, 1) if columns % size == 0)
    threads = _THREADS // vector
    widest, highest = (min(_power_of_two(size), threads) for size in (columns // vector, rows))
    height = min(highest, threads // min(widest, _WARP))
    width = min(widest, threads // height)
    if rows < min(height * _FEWEST_VALUES, _MOST_VALUES):
        return 0
    values, grid = -(-rows // height), -(-(columns // vector) // width)
    room = multiprocessors * (_RESIDENT_THREADS.get(capability, 2048) // (width * height))
    if values < _MOST_VALUES or grid > room:
        return 0
    blocks = max(min(-(-room // grid), -(-values // _FEWEST_VALUES)), -(-values // _MOST_VALUES))
    return _ACCUMULATED * columns * blocks * width * vector if blocks > 1 else 0


def _power_of_two(size: int) -> int:
    """The largest power of two that is not above `size`."""
    return 1 << (size.bit_length() - 1)
