"""PyTorch's caching allocator written down line by line from `c10/cuda/CUDACachingAllocator.cpp`, names kept.

Slow and plain: linked blocks, sets searched from end to end. It is the second opinion on `vramplan.allocator`, which
has neither. One stream, default configuration or `expandable_segments:True`. Addresses only rise, or only fall.
"""

from dataclasses import dataclass, field

kMinBlockSize, kSmallSize, kSmallBuffer = 512, 1048576, 2097152  # noqa: N816
kLargeBuffer, kMinLargeAlloc, kRoundLarge = 20971520, 10485760, 2097152  # noqa: N816


@dataclass(eq=False)
class Block:
    ptr: int
    size: int
    pool: "BlockPool"
    prev: "Block | None" = None
    next: "Block | None" = None
    allocated: bool = False
    mapped: bool = True

    def splice(self, before: "Block | None", after: "Block | None") -> None:
        if before:
            before.next = self
        self.prev = before
        if after:
            after.prev = self
        self.next = after


@dataclass(eq=False)
class BlockPool:
    is_small: bool
    blocks: set[Block] = field(default_factory=set)
    unmapped: set[Block] = field(default_factory=set)


class OutOfMemoryError(Exception):
    pass


class DeviceCachingAllocator:
    def __init__(self, capacity: int | None, expandable_segments: bool, falling: bool = False) -> None:
        self.capacity = capacity
        self.falling = falling  # cudaMalloc answers with ever lower addresses, else with ever higher ones
        self.expandable_segments = expandable_segments
        self.small_blocks, self.large_blocks = BlockPool(True), BlockPool(False)
        self.total_allocated_memory = 0  # reserved
        self.allocated_bytes = 0
        self.num_alloc_retries = 0
        self.next_ptr = 0
        self.live: set[Block] = set()

    def malloc(self, orig_size: int) -> Block:
        size = self.round_size(orig_size)
        pool = self.small_blocks if size <= kSmallSize else self.large_blocks
        alloc_size = self.get_allocation_size(size)
        block = self.get_free_block(pool, size) or self.alloc_block(pool, size, alloc_size)
        if block is None:
            self.release_cached_blocks()
            self.num_alloc_retries += 1
            block = self.alloc_block(pool, size, alloc_size)
        if block is None:
            raise OutOfMemoryError
        if self.should_split(block, size):
            remaining = block
            block = Block(remaining.ptr, size, pool)
            block.splice(remaining.prev, remaining)
            remaining.ptr += size
            remaining.size -= size
            pool.blocks.add(remaining)
        block.allocated = True
        self.allocated_bytes += block.size
        self.live.add(block)
        return block

    def free(self, block: Block) -> None:
        block.allocated = False
        self.allocated_bytes -= block.size
        self.live.remove(block)
        self.try_merge_blocks(block, block.prev)
        self.try_merge_blocks(block, block.next)
        block.pool.blocks.add(block)

    def try_merge_blocks(self, dst: Block, src: Block | None) -> None:
        if src is None or src.allocated or dst.mapped != src.mapped:
            return
        if dst.prev is src:
            dst.ptr = src.ptr
            dst.prev = src.prev
            if dst.prev:
                dst.prev.next = dst
        else:
            dst.next = src.next
            if dst.next:
                dst.next.prev = dst
        dst.size += src.size
        (src.pool.blocks if src.mapped else src.pool.unmapped).discard(src)

    @staticmethod
    def round_size(size: int) -> int:
        return kMinBlockSize if size < kMinBlockSize else kMinBlockSize * ((size + kMinBlockSize - 1) // kMinBlockSize)

    @staticmethod
    def get_allocation_size(size: int) -> int:
        if size <= kSmallSize:
            return kSmallBuffer
        if size < kMinLargeAlloc:
            return kLargeBuffer
        return kRoundLarge * ((size + kRoundLarge - 1) // kRoundLarge)

    def should_split(self, block: Block, size: int) -> bool:
        remaining = block.size - size
        if block.pool.is_small or self.expandable_segments:
            return remaining >= kMinBlockSize
        return remaining > kSmallSize

    def get_free_block(self, pool: BlockPool, size: int) -> Block | None:
        ordered = sorted((b for b in pool.blocks if b.size >= size), key=lambda b: (b.size, b.ptr))
        if not ordered:
            return None
        it = 0
        if self.expandable_segments:

            def expandable_size(b: Block) -> int:
                return b.size + (b.next.size if b.next and not b.next.mapped else 0)

            while it + 1 < len(ordered) and expandable_size(ordered[it + 1]) < expandable_size(ordered[it]):
                it += 1
        pool.blocks.remove(ordered[it])
        return ordered[it]

    def alloc_block(self, pool: BlockPool, size: int, alloc_size: int) -> Block | None:
        if self.expandable_segments:
            return self.try_allocate_expandable_block(pool, size)
        if not self.device_has(alloc_size):
            return None
        self.total_allocated_memory += alloc_size
        below, self.next_ptr = self.next_ptr, self.next_ptr + (-alloc_size if self.falling else alloc_size)
        return Block(min(below, self.next_ptr), alloc_size, pool)

    def device_has(self, size: int) -> bool:
        return self.capacity is None or self.total_allocated_memory + size <= self.capacity

    def release_cached_blocks(self) -> None:
        for pool in (self.large_blocks, self.small_blocks):
            for block in list(pool.blocks):
                if self.expandable_segments:
                    self.unmap_block(block)
                elif not block.prev and not block.next:
                    pool.blocks.remove(block)
                    self.total_allocated_memory -= block.size

    # expandable segments: `page` is the size of a physical handle

    @staticmethod
    def page(pool: BlockPool) -> int:
        return kSmallBuffer if pool.is_small else kLargeBuffer

    def find_expandable_block(self, pool: BlockPool, size: int) -> Block:
        def has_available_address_space(b: Block | None) -> bool:
            available = 0
            while available < size and b and not b.allocated:
                available += b.size
                b = b.next
            return available >= size

        for c in sorted(pool.unmapped, key=lambda b: b.ptr):
            start = c.prev if c.prev and not c.prev.allocated else c
            if has_available_address_space(start):
                return start
        assert not pool.unmapped, "the first address range is never full in these tests"
        candidate = Block(0 if pool.is_small else 2**60, 2**50, pool, mapped=False)
        pool.unmapped.add(candidate)
        return candidate

    def map_block(self, to_map: Block, size: int) -> bool:
        page, pool = self.page(to_map.pool), to_map.pool
        mapped_size = page * ((size + page - 1) // page)
        if not self.device_has(mapped_size):
            return False
        pool.unmapped.remove(to_map)
        to_map.mapped = True
        if mapped_size < to_map.size:
            remaining = Block(to_map.ptr + mapped_size, to_map.size - mapped_size, pool, mapped=False)
            remaining.splice(to_map, to_map.next)
            pool.unmapped.add(remaining)
            to_map.size = mapped_size
        self.try_merge_blocks(to_map, to_map.prev)
        self.try_merge_blocks(to_map, to_map.next)
        pool.blocks.add(to_map)
        self.total_allocated_memory += mapped_size
        return True

    def try_allocate_expandable_block(self, pool: BlockPool, size: int) -> Block | None:
        candidate = self.find_expandable_block(pool, size)
        if not candidate.mapped and not self.map_block(candidate, min(candidate.size, size)):
            return None
        while candidate.size < size:
            remaining = size - candidate.size
            new_candidate = candidate.next
            assert new_candidate is not None
            if not self.map_block(new_candidate, min(remaining, new_candidate.size)):
                return None
            candidate = new_candidate
        pool.blocks.remove(candidate)
        return candidate

    def unmap_block(self, block: Block) -> None:
        page, pool = self.page(block.pool), block.pool
        begin, end = -(-block.ptr // page) * page, (block.ptr + block.size) // page * page
        if not pool.is_small:  # pages are counted from the start of the range
            base = 2**60
            begin = base + -(-(block.ptr - base) // page) * page
            end = base + (block.ptr + block.size - base) // page * page
        if begin >= end:
            return
        pool.blocks.remove(block)
        if begin > block.ptr:
            before_free = Block(block.ptr, begin - block.ptr, pool)
            before_free.splice(block.prev, block)
            pool.blocks.add(before_free)
        if end < block.ptr + block.size:
            after_free = Block(end, block.ptr + block.size - end, pool)
            after_free.splice(block, block.next)
            pool.blocks.add(after_free)
        block.ptr, block.size, block.mapped = begin, end - begin, False
        self.try_merge_blocks(block, block.prev)
        self.try_merge_blocks(block, block.next)
        pool.unmapped.add(block)
        self.total_allocated_memory -= end - begin
