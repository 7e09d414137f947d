"""The driver below the allocator: hands out device memory until a budget is spent."""


class Driver:
    """`cudaMalloc` and `cudaFree` as the allocator sees them; counts what it handed out.

    Addresses only grow and are never handed out twice, and no two segments touch. The real driver promises none of
    this; it matters only where two free blocks of one size compete, of which the allocator takes the lower address.
    """

    __slots__ = ("budget", "calls", "highest", "reserved", "top")

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.reserved = 0
        self.highest = 0
        self.calls = 0
        self.top = 0  # the next address

    def follow(self, other: "Driver") -> None:
        """Go on where another one is, under the own budget."""
        self.reserved, self.highest, self.calls, self.top = other.reserved, other.highest, other.calls, other.top

    def charge(self, size: int) -> bool:
        """Take `size` bytes of the device; False, and nothing taken, when the budget does not hold them."""
        reserved = self.reserved + size
        if self.budget is not None and reserved > self.budget:
            return False
        self.reserved = reserved
        self.calls += 1
        if reserved > self.highest:
            self.highest = reserved
        return True

    def place(self, size: int) -> int:
        """The address of a new segment of `size` bytes; the gap behind it keeps segments from touching."""
        address = self.top
        self.top += size + 512
        return address

    def release(self, size: int) -> None:
        """Take `size` bytes back."""
        self.reserved -= size
