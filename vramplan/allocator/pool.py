"""One pool of the caching allocator: free blocks by size, split when handed out, merged when given back.

Follows `get_free_block`, `alloc_found_block`, `free_block`, `release_blocks` in `c10/cuda/CUDACachingAllocator.cpp`
(torch 2.11 to 2.14) for one stream and the default configuration.

The allocator keeps free blocks in a set ordered by size, then address; from torch 2.12 on by size, number of the
segment, then address, which is the same where addresses rise (`Driver`). Here blocks of one size stand on a shelf,
lowest address first: hundreds of free blocks have a dozen sizes, so that the smallest sufficient one is found in four
steps.
"""

from bisect import bisect_left, insort
from typing import Any

from vramplan.allocator.driver import Driver
from vramplan.allocator.rules import segment_size

#: A block, by the fields below. A list and not a class: a replay makes, reads and compares some 100,000 of them, and a
#: shelf of lists sorts itself by their first element.
Block = list[Any]
ADDRESS, SIZE, LEFT, RIGHT, FREE = range(5)
"""Where it begins, how many bytes it has, its neighbours in the segment (None at the ends), and whether it is free:
True, False while in use, None where no memory is mapped (expandable segments only)."""


class Pool:
    """Segments obtained by `cudaMalloc`, each cut into blocks. Sizes given to it are multiples of 512 bytes.

    Handing out and giving back, the replay's inner loop, are written out in `vramplan.allocator.replay`.
    """

    __slots__ = ("driver", "segments", "shelves", "sizes", "split_from")

    def __init__(self, driver: Driver, split_from: int) -> None:
        self.driver = driver
        self.split_from = split_from  # a remainder of at least this many bytes becomes a block of its own
        self.shelves: dict[int, list[Block]] = {}  # size -> free blocks by address; emptied ones go when come across
        self.sizes: list[int] = []  # of the shelves, ascending
        self.segments: dict[int, Block] = {}  # address -> the first block

    def put(self, block: Block) -> None:
        """Note a free block."""
        block[FREE] = True
        size = block[SIZE]
        if size not in self.shelves:
            self.shelves[size] = []
            insort(self.sizes, size)
        insort(self.shelves[size], block)

    def drop(self, block: Block) -> None:
        """Forget a free block, which is then in use."""
        block[FREE] = False
        shelf = self.shelves[block[SIZE]]
        del shelf[bisect_left(shelf, block)]

    def free(self) -> list[Block]:
        """The free blocks, by size, then address."""
        return [block for size in self.sizes for block in self.shelves[size]]

    def grow(self, size: int) -> Block | None:
        """A new block of at least `size` bytes from the driver, in use; None when it refuses."""
        wanted = segment_size(size)
        if not self.driver.charge(wanted):
            return None
        address = self.driver.place(wanted)
        block = self.segments[address] = [address, wanted, None, None, False]
        return block

    def release(self) -> None:
        """Give every segment without a block in use back to the driver."""
        for block in self.free():
            if block[LEFT] is None and block[RIGHT] is None:
                self.drop(block)
                del self.segments[block[ADDRESS]]
                self.driver.release(block[SIZE])

    def state(self) -> list[int]:
        """All that decides what happens next; two equal states behave alike: new segments stand beyond all others."""
        state = []
        for size in self.sizes:
            if shelf := self.shelves[size]:
                state.append(-size)
                state += [block[ADDRESS] for block in shelf]
        return state

    def firsts(self) -> list[Block]:
        """The first block of everything that is cut into blocks."""
        return [*self.segments.values()]

    def follow(self, other: "Pool") -> dict[int, Block]:
        """Go on where another one is, with blocks of its own, which come back by the `id` of the others."""
        blocks: dict[int, Block] = {}
        for first in other.firsts():
            blocks |= copied(first)
        self.segments = {address: blocks[id(first)] for address, first in other.segments.items()}
        self.sizes += other.sizes
        for size, shelf in other.shelves.items():
            self.shelves[size] = [blocks[id(block)] for block in shelf]
        return blocks

    def copy(self, low: int, high: int, shift: int) -> dict[int, Block]:
        """Copies, `shift` further on, of the segments between two addresses, which are wholly in use.

        Comes back by the `id` of the original blocks.
        """
        copies: dict[int, Block] = {}
        for address, first in [*self.segments.items()]:
            if low <= address < high:
                copies |= copied(first, shift)
                self.segments[address + shift] = copies[id(first)]
        return copies


def copied(first: Block, shift: int = 0) -> dict[int, Block]:
    """Copies, `shift` further on, of a block and those to its right, by their `id`."""
    left: Block = [first[ADDRESS] + shift, first[SIZE], None, None, first[FREE]]
    copies = {id(first): left}
    while first := first[RIGHT]:
        left[RIGHT] = [first[ADDRESS] + shift, first[SIZE], left, None, first[FREE]]
        left = copies[id(first)] = left[RIGHT]
    return copies
