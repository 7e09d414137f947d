"""The caching allocator as a whole: two pools over one driver, and the counters that PyTorch keeps."""

from vramplan.allocator.driver import Driver
from vramplan.allocator.expandable import ExpandablePool
from vramplan.allocator.gauge import Gauge
from vramplan.allocator.pool import ADDRESS, Block, Pool
from vramplan.allocator.result import Growth, OutOfMemory, Replay
from vramplan.allocator.rules import LARGE_SEGMENT, MIN_BLOCK, SMALL_SEGMENT, SMALL_SIZE, Rules
from vramplan.timeline import Alloc


class Refused(Exception):
    """The driver gave no memory for a block, although all cached segments had been given back."""

    def __init__(self, machine: "Machine", number: int) -> None:
        super().__init__(number)
        self.machine = machine
        self.number = number

    def report(self, requests: list[Alloc]) -> OutOfMemory:
        """What was asked, and how the memory stood."""
        request, machine = requests[self.number], self.machine
        return OutOfMemory(
            phase=machine.gauge.phase,
            label=request.label,
            component=request.component,
            requested=request.bytes,
            segment=machine.driver.refused,
            allocated=machine.gauge.allocated,
            reserved=machine.driver.reserved,
            budget=machine.driver.budget or 0,
        )


class Machine:
    """The state of `torch.cuda`'s memory."""

    __slots__ = ("carried", "driver", "expandable", "frames", "gauge", "growth", "large", "retries", "rules", "small")

    def __init__(self, budget: int | None, rules: Rules) -> None:
        self.rules = rules
        self.driver = Driver(budget, falling=rules.youngest_first)
        self.small: Pool
        self.large: Pool
        self.expandable: tuple[ExpandablePool, ExpandablePool] | None = None
        if rules.expandable_segments:
            self.expandable = ExpandablePool(self.driver, SMALL_SEGMENT), ExpandablePool(self.driver, LARGE_SEGMENT)
            self.small, self.large = self.expandable
        else:
            self.small = Pool(self.driver, MIN_BLOCK)
            self.large = Pool(self.driver, SMALL_SIZE + 1)
        self.gauge = Gauge(self.driver)
        self.frames: dict[int, dict[int, Block]] = {}  # name of a round -> blocks in use that it took, by number
        self.carried: dict[int, Block] = {}
        """Laid down by a round and not yet picked up."""
        self.growth: list[Growth] = []
        self.retries = 0

    def copy(self, budget: int | None) -> "Machine":
        """The same state under another budget."""
        twin = Machine(budget, self.rules)
        twin.driver.follow(self.driver)
        blocks = {**twin.small.follow(self.small), **twin.large.follow(self.large)}
        twin.gauge.follow(self.gauge)
        for name, frame in self.frames.items():
            twin.frames[name] = {number: blocks[id(block)] for number, block in frame.items()}
        twin.growth += self.growth
        twin.retries = self.retries
        return twin

    def addresses_carried(self) -> list[int]:
        """Where the blocks are that one round hands to the next."""
        return [block[ADDRESS] for block in self.carried.values()]

    def grow(self, pool: Pool, number: int, size: int, event: int) -> Block:
        """A block in use from new memory, nothing cached being large enough; raises `Refused` when there is none."""
        block = pool.grow(size)
        if block is None:
            self._free_cached()
            self.retries += 1
            block = pool.grow(size)
        if block is None:
            raise Refused(self, number)
        self._note(event)
        return block

    def release(self, event: int) -> None:
        """`torch.cuda.empty_cache`."""
        self.gauge.settle()
        self._free_cached()
        self._note(event)

    def result(self, oom: OutOfMemory | None) -> Replay:
        """Everything that was noted."""
        marks = self.gauge.marks()
        return Replay(marks, self.gauge.allocated, tuple(self.growth), self.driver.calls, self.retries, oom)

    def _free_cached(self) -> None:
        self.large.release()
        self.small.release()

    def _note(self, event: int) -> None:
        reserved = self.driver.reserved
        if reserved != (self.growth[-1].reserved if self.growth else 0):
            self.growth.append(Growth(event, reserved))
