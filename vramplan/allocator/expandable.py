"""A pool with `expandable_segments:True`: one address range whose pages are mapped and unmapped.

Follows `try_allocate_expandable_block`, `find_expandable_block`, `map_block`, `unmap_block` and the search order of
`get_free_block` in `c10/cuda/CUDACachingAllocator.cpp` (torch 2.11 to 2.13). PyTorch reserves address space for 9/8 of
the card; here the range has no end, so a second one is never begun.
"""

from bisect import bisect_left, insort

from vramplan.allocator.driver import Driver
from vramplan.allocator.pool import ADDRESS_BITS, ADDRESS_MASK, Pool
from vramplan.allocator.rules import MIN_BLOCK

RANGE = 1 << 50  # more than any card; the unmapped rest of the range is a hole of this order


class ExpandablePool(Pool):
    """Blocks inside one address range; `page` bytes are mapped at a time."""

    __slots__ = ("holes", "page", "sizes")

    def __init__(self, driver: Driver, page: int) -> None:
        super().__init__(driver, MIN_BLOCK)  # should_split: any remainder becomes a block, in both pools
        self.page = page
        self.fit = self._fit
        self.holes = [0]  # where unmapped stretches begin, ascending; both ends lie on page boundaries
        self.sizes = {0: RANGE}

    def _fit(self, free: list[int], wanted: int) -> int:
        """As in `Pool`, but a block that a hole follows counts for what it could grow to."""
        i = bisect_left(free, wanted)
        while i + 1 < len(free) and self._reach(free[i + 1]) < self._reach(free[i]):
            i += 1
        return i

    def _reach(self, key: int) -> int:
        size = key >> ADDRESS_BITS
        return size + self.sizes.get((key & ADDRESS_MASK) + size, 0)

    def grow(self, size: int) -> bool:
        """Map pages behind, or in place of, the first stretch that has room; what got mapped before a refusal stays."""
        start = self._room(size)
        while (have := self._free_from(start)) < size:
            if not self._map(start + have, size - have):
                return False
        return True

    def _room(self, size: int) -> int:
        """The lowest address from which free blocks and holes without a gap hold `size` bytes."""
        for hole in self.holes:
            start = self.ends.get(hole, hole) & ADDRESS_MASK
            end = start
            while end - start < size and (step := self._free_from(end) or self.sizes.get(end, 0)):
                end += step
            if end - start >= size:
                return start
        raise AssertionError("the address range has no end")

    def _free_from(self, address: int) -> int:
        """Bytes of the free block at `address`; 0 when there is none."""
        return self.starts.get(address, 0) >> ADDRESS_BITS

    def _map(self, hole: int, wanted: int) -> bool:
        """Turn the first `wanted` bytes of a hole, whole pages, into a free block merged with its neighbours."""
        stretch = self.sizes[hole]
        mapped = min(-(-wanted // self.page) * self.page, stretch)
        if not self.driver.charge(mapped):
            return False
        del self.sizes[hole]
        i = bisect_left(self.holes, hole)
        del self.holes[i]
        if mapped < stretch:
            self.holes.insert(i, hole + mapped)
            self.sizes[hole + mapped] = stretch - mapped
        self.give(mapped << ADDRESS_BITS | hole)
        return True

    def release(self) -> None:
        """Unmap every page that no block in use touches; what is left of a free block stays cached."""
        page = self.page
        for key in list(self.free):
            address, size = key & ADDRESS_MASK, key >> ADDRESS_BITS
            first, last = -(-address // page) * page, (address + size) // page * page
            if first >= last:
                continue
            self.drop(address, size)
            if address < first:
                self.put(address, first - address)
            if last < address + size:
                self.put(last, address + size - last)
            self.driver.release(last - first)
            self._unmap(first, last - first)

    def _unmap(self, start: int, size: int) -> None:
        """A hole, merged with the holes that touch it."""
        i = bisect_left(self.holes, start)
        if i > 0 and self.holes[i - 1] + self.sizes[self.holes[i - 1]] == start:
            i -= 1
            start = self.holes.pop(i)
            size += self.sizes.pop(start)
        if i < len(self.holes) and self.holes[i] == start + size:
            size += self.sizes.pop(self.holes.pop(i))
        insort(self.holes, start)
        self.sizes[start] = size

    def state(self) -> list[int]:
        """As in `Pool`; what is mapped decides as well."""
        return [*self.free, -1, *self.holes]

    def pieces(self) -> int:
        """One address range while any page of it is mapped."""
        return int(self.sizes != {0: RANGE})
