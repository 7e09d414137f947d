"""A pool with `expandable_segments:True`: one address range whose pages are mapped and unmapped.

Follows `try_allocate_expandable_block`, `find_expandable_block`, `map_block`, `unmap_block` and the search order of
`get_free_block` in `c10/cuda/CUDACachingAllocator.cpp` (torch 2.11 to 2.13). PyTorch reserves address space for 9/8 of
the card; here the range has no end, so a second one is never begun.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from vramplan.allocator.driver import Driver
from vramplan.allocator.pool import ADDRESS, FREE, LEFT, RIGHT, SIZE, Block, Pool
from vramplan.allocator.rules import MIN_BLOCK

RANGE = 1 << 110  # more than any run; the unmapped rest of the range is a hole of this order


class ExpandablePool(Pool):
    """Blocks inside one address range; `page` bytes are mapped at a time."""

    __slots__ = ("holes", "page")

    def __init__(self, driver: Driver, page: int) -> None:
        super().__init__(driver, MIN_BLOCK)  # should_split: any remainder becomes a block, in both pools
        self.page = page
        self.holes: list[Block] = [[0, RANGE, None, None, None]]  # unmapped stretches, ascending, on page boundaries

    def prefer(self, block: Block) -> Block:
        """The block to hand out instead of `block`, the smallest sufficient one, which a hole follows: it counts for
        what it could grow to. Either has left its shelf."""
        best = block
        for other in self._from(block[SIZE]):
            if _reach(other) >= _reach(best):
                break
            best = other
        if best is not block:
            self.put(block)
            self.drop(best)
        return best

    def _from(self, size: int) -> Iterator[Block]:
        """The free blocks of at least `size` bytes, by size, then address."""
        i = bisect_left(self.sizes, size)
        while i < len(self.sizes):
            if shelf := self.shelves[self.sizes[i]]:
                yield from shelf
                i += 1
            else:
                del self.shelves[self.sizes.pop(i)]

    def grow(self, size: int) -> Block | None:
        """Map pages behind, or in place of, the first stretch that has room; what got mapped before a refusal stays."""
        start: Block | None = self._room(size)
        if start and start[FREE] is None:
            start = self._map(start, size)
        while start and start[SIZE] < size:
            start = self._map(start[RIGHT], size - start[SIZE])
        if start:
            self.drop(start)
        return start

    def _room(self, size: int) -> Block:
        """The lowest free block or hole from which such, without a gap, hold `size` bytes."""
        for hole in self.holes:
            start = hole[LEFT] if hole[LEFT] and hole[LEFT][FREE] else hole
            room, end = 0, start
            while room < size and end and end[FREE] is not False:
                room += end[SIZE]
                end = end[RIGHT]
            if room >= size:
                return start
        raise AssertionError("the address range has no end")

    def _map(self, hole: Block, wanted: int) -> Block | None:
        """Turn the first `wanted` bytes of a hole, whole pages, into a free block merged with its neighbours."""
        mapped = min(-(-wanted // self.page) * self.page, hole[SIZE])
        if not self.driver.charge(mapped):
            return None
        self.holes.remove(hole)
        if mapped < hole[SIZE]:
            insort(self.holes, _cut(hole, mapped))
        return self._merge(hole)

    def _merge(self, block: Block) -> Block:
        """A free block in place of `block` and the free neighbours it has."""
        left, right = block[LEFT], block[RIGHT]
        if right and right[FREE]:
            self.drop(right)
            _join(block, right)
        if left and left[FREE]:
            self.drop(left)
            _join(left, block)
            block = left
        self.put(block)
        return block

    def release(self) -> None:
        """Unmap every page that no block in use touches; what is left of a free block stays cached."""
        page = self.page
        for block in self.free():
            address, size = block[ADDRESS], block[SIZE]
            first, last = -(-address // page) * page, (address + size) // page * page
            if first >= last:
                continue
            self.drop(block)
            if last < address + size:
                self.put(_cut(block, last - address))
            if address < first:
                middle = _cut(block, first - address)
                self.put(block)
                block = middle
            self.driver.release(last - first)
            self._unmap(block)

    def _unmap(self, block: Block) -> None:
        """A hole in place of `block` and the holes that touch it."""
        block[FREE] = None
        left, right = block[LEFT], block[RIGHT]
        if right and right[FREE] is None:
            self.holes.remove(right)
            _join(block, right)
        if left and left[FREE] is None:
            _join(left, block)
        else:
            insort(self.holes, block)

    def firsts(self) -> list[Block]:
        """As in `Pool`: the one that the address range begins with."""
        first = self.holes[-1]
        while first[LEFT]:
            first = first[LEFT]
        return [first]

    def follow(self, other: Pool) -> dict[int, Block]:
        """As in `Pool`."""
        blocks = super().follow(other)
        self.holes = [block for block in blocks.values() if block[FREE] is None]
        return blocks

    def state(self) -> list[int]:
        """As in `Pool`; what is mapped decides as well."""
        return [*super().state(), -1, *(hole[ADDRESS] for hole in self.holes)]


def _reach(block: Block) -> int:
    hole = block[RIGHT]
    return int(block[SIZE] + (hole[SIZE] if hole and hole[FREE] is None else 0))


def _cut(block: Block, size: int) -> Block:
    """Leave `size` bytes of a block; a block of the same kind for the rest."""
    rest = [block[ADDRESS] + size, block[SIZE] - size, block, block[RIGHT], block[FREE]]
    if block[RIGHT]:
        block[RIGHT][LEFT] = rest
    block[SIZE], block[RIGHT] = size, rest
    return rest


def _join(block: Block, right: Block) -> None:
    """Append its right neighbour to a block."""
    block[SIZE] += right[SIZE]
    block[RIGHT] = right[RIGHT]
    if right[RIGHT]:
        right[RIGHT][LEFT] = block
