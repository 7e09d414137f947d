"""One pool of the caching allocator: free blocks by size, split when handed out, merged when given back.

Follows `get_free_block`, `alloc_found_block`, `free_block`, `release_blocks` in `c10/cuda/CUDACachingAllocator.cpp`
(torch 2.11 to 2.13) for one stream and the default configuration.
"""

from bisect import bisect_left, insort
from collections.abc import Callable

from vramplan.allocator.driver import Driver
from vramplan.allocator.rules import segment_size

# A block is one integer, size above address: a sorted list of free ones is in the allocator's order, (size, address).
ADDRESS_BITS = 120  # more than the largest run that a scenario can ask for, whatever hardware would say
ADDRESS_MASK = (1 << ADDRESS_BITS) - 1


class Pool:
    """Segments obtained by `cudaMalloc`, each cut into blocks. Sizes given to it are multiples of 512 bytes."""

    __slots__ = ("driver", "ends", "fit", "free", "segments", "split_from", "starts")

    def __init__(self, driver: Driver, split_from: int) -> None:
        self.driver = driver
        self.split_from = split_from  # a remainder of at least this many bytes becomes a block of its own
        self.free: list[int] = []
        self.starts: dict[int, int] = {}  # free blocks by address
        self.ends: dict[int, int] = {}  # free blocks by the address behind them
        self.segments: dict[int, int] = {}  # address -> size
        self.fit: Callable[[list[int], int], int] = bisect_left
        """Where in `free` the smallest block of at least a size stands, of equals the lowest; its end if none."""

    def take(self, size: int) -> int:
        """A block in use for `size` bytes, cut from a free one; -1 when none is large enough."""
        free = self.free
        wanted = size << ADDRESS_BITS
        i = self.fit(free, wanted)
        if i == len(free):
            return -1
        block = free.pop(i)
        address = block & ADDRESS_MASK
        del self.starts[address]
        have = block >> ADDRESS_BITS
        if have - size < self.split_from:
            del self.ends[address + have]
            return block
        rest = block - wanted + size
        insort(free, rest)
        self.starts[address + size] = self.ends[address + have] = rest
        return wanted | address

    def give(self, block: int) -> None:
        """Put a block back, merged with the free blocks that touch it."""
        free, starts, ends = self.free, self.starts, self.ends
        address = block & ADDRESS_MASK
        behind = address + (block >> ADDRESS_BITS)
        left = ends.pop(address, 0)
        if left:
            del free[bisect_left(free, left)]
            block += left - address
            address = left & ADDRESS_MASK
        right = starts.pop(behind, 0)
        if right:
            del free[bisect_left(free, right)]
            block += right - behind
            behind += right >> ADDRESS_BITS
        starts[address] = ends[behind] = block
        insort(free, block)

    def grow(self, size: int) -> bool:
        """Ask the driver for a free block of at least `size` bytes; False when it refuses."""
        wanted = segment_size(size)
        if not self.driver.charge(wanted):
            return False
        address = self.driver.place(wanted)
        self.segments[address] = wanted
        self.put(address, wanted)
        return True

    def release(self) -> None:
        """Give every segment without a block in use back to the driver."""
        for key in [key for key in self.free if self.segments.get(key & ADDRESS_MASK) == key >> ADDRESS_BITS]:
            address, size = key & ADDRESS_MASK, key >> ADDRESS_BITS
            self.drop(address, size)
            del self.segments[address]
            self.driver.release(size)

    def put(self, address: int, size: int) -> None:
        """Note a free block."""
        block = size << ADDRESS_BITS | address
        self.starts[address] = self.ends[address + size] = block
        insort(self.free, block)

    def drop(self, address: int, size: int) -> None:
        """Forget a free block."""
        del self.starts[address]
        del self.free[bisect_left(self.free, self.ends.pop(address + size))]

    def largest(self) -> int:
        """Bytes of the largest free block."""
        return self.free[-1] >> ADDRESS_BITS if self.free else 0

    def state(self) -> list[int]:
        """All that decides what happens next; two equal states behave alike, new segments standing above all others."""
        return self.free.copy()

    def cycle(self, since: int, shift: int, times: int) -> None:
        """Repeat `times` times, each `shift` addresses further, the segments placed since address `since`."""
        for address, size in [item for item in self.segments.items() if item[0] >= since]:
            for k in range(1, times + 1):
                self.segments[address + k * shift] = size

    def pieces(self) -> int:
        """How many segments there are."""
        return len(self.segments)
