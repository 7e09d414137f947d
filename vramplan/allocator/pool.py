"""One pool of the caching allocator: free blocks by size, split when handed out, merged when given back.

Follows `get_free_block`, `alloc_found_block`, `free_block`, `release_blocks` in `c10/cuda/CUDACachingAllocator.cpp`
(torch 2.11 to 2.13) for one stream and the default configuration.
"""

from bisect import bisect_left, insort

from vramplan.allocator.driver import Driver
from vramplan.allocator.rules import segment_size

# A free block is one integer, size above address: a sorted list of them is in the allocator's order, (size, address).
ADDRESS_BITS = 120  # more than the largest run that a scenario can ask for, whatever hardware would say
ADDRESS_MASK = (1 << ADDRESS_BITS) - 1


class Pool:
    """Segments obtained by `cudaMalloc`, each cut into blocks. Sizes given to it are multiples of 512 bytes."""

    __slots__ = ("blocks", "driver", "ends", "free", "segments", "split_from", "starts")

    def __init__(self, driver: Driver, split_from: int) -> None:
        self.driver = driver
        self.split_from = split_from  # a remainder of at least this many bytes becomes a block of its own
        self.free: list[int] = []
        self.starts: dict[int, int] = {}  # of each free block: address -> size
        self.ends: dict[int, int] = {}  # of each free block: address behind it -> address
        self.blocks: dict[int, int] = {}  # of each block in use: address -> size
        self.segments: dict[int, int] = {}

    def take(self, size: int) -> int:
        """The address of a block in use for `size` bytes; -1 when no free block fits and the driver gives no more."""
        free = self.free
        i = self.fit(size)
        if i < len(free):
            key = free.pop(i)
            address = key & ADDRESS_MASK
            have = key >> ADDRESS_BITS
            del self.starts[address]
        else:
            address = self.grow(size)
            if address < 0:
                return -1
            have = self.starts.pop(address)
            del free[bisect_left(free, have << ADDRESS_BITS | address)]
        rest = have - size
        if rest >= self.split_from:
            start = address + size
            insort(free, rest << ADDRESS_BITS | start)
            self.starts[start] = rest
            self.ends[address + have] = start
            self.blocks[address] = size
        else:
            del self.ends[address + have]
            self.blocks[address] = have
        return address

    def give(self, address: int) -> None:
        """Put the block at `address` back, merged with the free blocks that touch it."""
        size = self.blocks.pop(address)
        free, starts, ends = self.free, self.starts, self.ends
        left = ends.pop(address, -1)
        if left >= 0:
            before = starts[left]
            del free[bisect_left(free, before << ADDRESS_BITS | left)]
            address = left
            size += before
        behind = address + size
        after = starts.pop(behind, 0)
        if after:
            del free[bisect_left(free, after << ADDRESS_BITS | behind)]
            size += after
            behind += after
        starts[address] = size
        ends[behind] = address
        insort(free, size << ADDRESS_BITS | address)

    def fit(self, size: int) -> int:
        """Where in `free` the smallest block of at least `size` stands, of equals the lowest; its end if none."""
        return bisect_left(self.free, size << ADDRESS_BITS)

    def grow(self, size: int) -> int:
        """The address of a new free block of at least `size` bytes; -1 when the driver refuses."""
        wanted = segment_size(size)
        if not self.driver.charge(wanted):
            return -1
        address = self.driver.place(wanted)
        self.segments[address] = wanted
        self.put(address, wanted)
        return address

    def release(self) -> None:
        """Give every segment without a block in use back to the driver."""
        for key in [key for key in self.free if self.segments.get(key & ADDRESS_MASK) == key >> ADDRESS_BITS]:
            address, size = key & ADDRESS_MASK, key >> ADDRESS_BITS
            self.drop(address, size)
            del self.segments[address]
            self.driver.release(size)

    def put(self, address: int, size: int) -> None:
        """Note a free block."""
        self.starts[address] = size
        self.ends[address + size] = address
        insort(self.free, size << ADDRESS_BITS | address)

    def drop(self, address: int, size: int) -> None:
        """Forget a free block."""
        del self.starts[address]
        del self.ends[address + size]
        del self.free[bisect_left(self.free, size << ADDRESS_BITS | address)]

    def largest(self) -> int:
        """Bytes of the largest free block."""
        return self.free[-1] >> ADDRESS_BITS if self.free else 0

    def state(self) -> tuple[int, ...]:
        """All that decides what happens next; two equal states behave alike, new segments standing above all others."""
        return tuple(self.free)

    def cycle(self, since: int, shift: int, times: int) -> None:
        """Repeat `times` times, each `shift` addresses further, the segments placed since address `since`."""
        for address, size in [item for item in self.segments.items() if item[0] >= since]:
            for k in range(1, times + 1):
                self.segments[address + k * shift] = size
        for address, size in [item for item in self.blocks.items() if item[0] >= since]:
            for k in range(1, times + 1):
                self.blocks[address + k * shift] = size

    def pieces(self) -> int:
        """How many segments there are."""
        return len(self.segments)
