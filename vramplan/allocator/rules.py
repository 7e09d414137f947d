"""The numbers of PyTorch's caching allocator, the two roundings that follow from them, and what a run can choose.

Constants: `c10/core/AllocatorConfig.h`, torch 2.13 (in `c10/cuda/CUDACachingAllocator.cpp` before 2.9, same values).
"""

from typing import NamedTuple

MIN_BLOCK = 512  # kMinBlockSize: every size is rounded up to a multiple of it
SMALL_SIZE = 2**20  # kSmallSize: a request up to here is served from the small pool
SMALL_SEGMENT = 2 * 2**20  # kSmallBuffer: what the small pool asks the driver for
LARGE_SEGMENT = 20 * 2**20  # large_segment_size (kLargeBuffer): segment of a large request below MIN_LARGE
MIN_LARGE = 10 * 2**20  # kMinLargeAlloc: from here on a request gets a segment of its own size
ROUND_LARGE = 2 * 2**20  # kRoundLarge: ... rounded up to a multiple of it
#: How much of a card transformers' warm-up of the allocator spares (5.17 modeling_utils.py caching_allocator_warmup).
WARM_UP_SPARED = 1.2 * 2**30


def block_size(size: int) -> int:
    """Bytes that a request of `size` is rounded up to (`round_size`); an empty tensor takes none."""
    return -(-size // MIN_BLOCK) * MIN_BLOCK


def segment_size(size: int) -> int:
    """Bytes asked from the driver for a block of `size` when nothing cached fits (`get_allocation_size`)."""
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_LARGE:
        return LARGE_SEGMENT
    return -(-size // ROUND_LARGE) * ROUND_LARGE


class Rules(NamedTuple):
    """How the allocator of a run behaves."""

    youngest_first: bool = False
    """Of free blocks of one size that in the youngest segment is handed out: torch up to 2.11 (`torch_release`)."""
    expandable_segments: bool = False
    """PYTORCH_ALLOC_CONF=expandable_segments:True."""
