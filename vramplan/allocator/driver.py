"""The driver below the allocator: hands out device memory until a budget is spent."""

from vramplan.allocator.rules import MIN_BLOCK

#: More than any run takes, in either direction: addresses are never negative.
_MIDDLE = 1 << 60


class Driver:
    """`cudaMalloc` and `cudaFree` as the allocator sees them; counts what it handed out.

    Addresses only rise, or only fall, and are never handed out twice, and no two segments touch. The real driver
    promises none of this; it matters only where two free blocks of one size compete, of which the allocator takes that
    at the lower address.
    """

    __slots__ = ("budget", "calls", "falling", "highest", "next", "refused", "reserved")

    def __init__(self, budget: int | None, *, falling: bool) -> None:
        self.budget = budget
        self.falling = falling
        self.reserved = 0
        self.highest = 0
        self.calls = 0
        self.refused = 0  # what it was asked for when it last had to refuse
        self.next = _MIDDLE  # the next segment begins here, or if addresses fall, ends before

    def follow(self, other: "Driver") -> None:
        """Go on where another one is, under the own budget."""
        self.reserved, self.highest, self.calls, self.next = other.reserved, other.highest, other.calls, other.next

    def charge(self, size: int) -> bool:
        """Take `size` bytes of the device; False, and nothing taken, when the budget does not hold them."""
        reserved = self.reserved + size
        if self.budget is not None and reserved > self.budget:
            self.refused = size
            return False
        self.reserved = reserved
        self.calls += 1
        if reserved > self.highest:
            self.highest = reserved
        return True

    def place(self, size: int) -> int:
        """The address of a new segment of `size` bytes; the gap behind it keeps segments from touching."""
        address = self.next
        self.next += -size - MIN_BLOCK if self.falling else size + MIN_BLOCK
        return self.next if self.falling else address

    def release(self, size: int) -> None:
        """Take `size` bytes back."""
        self.reserved -= size
