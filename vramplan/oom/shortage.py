"""The request that could not be met, and how the card's memory was shared at that moment."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vramplan.allocator.rules import block_size, segment_size
from vramplan.oom.message import OomMessage, OtherProcess
from vramplan.oom.printed import Printed
from vramplan.units import MIB

#: Of what PyTorch had reserved, the share in no tensor from which on fragmentation is named the cause. Its message
#: speaks of it "if reserved memory is >> allocated memory" (2.0), "if reserved but unallocated memory is large" (since
#: 2.1), and names no number. Of 376 random runs that failed although what was in no tensor would have met the request,
#: expandable segments let 13 of 26 go on where it was more than this, and 38 of 350 where it was less
#: (`benchmarks/plan_cases.py fragmentation 600`).
GOOD_SHARE = 0.2
#: The smallest context of the catalogue (28 MiB, a Jetson): no process that computes on a card holds less. What is
#: missing in a message's sum below that is its rounding, and what the driver keeps for itself.
LEAST_PROCESS = 28 * MIB


class Cause(StrEnum):
    """What alone would have been enough to meet the request, the cheapest first."""

    LIMIT = "limit"  # the process's own limit
    FRAGMENTATION = "fragmentation"  # what PyTorch had reserved but not in use
    OTHERS = "others"  # what other processes held
    DEMAND = "demand"  # nothing of these: the run needs more than there is


@dataclass(frozen=True, slots=True)
class Shortage:
    """A failed request. PyTorch had given its wholly free segments back before."""

    requested: Printed
    free: Printed
    """What the driver had left."""
    allocated: Printed
    """By this process's tensors."""
    unallocated: Printed
    """Reserved by this process's allocator, in no tensor: too scattered for the request, or in use by segments."""
    private_pools: Printed
    capacity: Printed | None
    """None in a snapshot, which does not tell."""
    process: Printed | None
    """All that this process held; None where it is not told."""
    listed: tuple[OtherProcess, ...]
    """Other processes that the message names."""
    allowed: Printed | None
    """The process's own limit."""

    @property
    def reserved(self) -> Printed:
        """What PyTorch's allocator held."""
        return self.allocated + self.unallocated

    @property
    def others(self) -> Printed:
        """What other processes held, as far as is known; never less than what the message lists."""
        listed = sum((other.held for other in self.listed), start=Printed.exact(0))
        if self.capacity is None or self.process is None:
            return listed
        rest = self.capacity.less(self.free).less(self.process)
        return rest if rest.low >= listed.high + LEAST_PROCESS else listed

    @property
    def context(self) -> Printed | None:
        """What this process held outside PyTorch's allocator; None where it is not told."""
        return self.process.less(self.reserved) if self.process is not None else None

    @property
    def unexplained(self) -> Printed | None:
        """On the card beyond the allocator, what is free and whom the message lists: context and others, where they
        cannot be told apart; None where the process's own part is known, or the capacity is not."""
        if self.capacity is None or self.process is not None:
            return None
        return self.capacity.less(self.free).less(self.reserved).less(self.others)

    @property
    def available(self) -> int:
        """What the allocator could still have taken: the driver's free memory, within the process's own limit."""
        if self.allowed is None:
            return self.free.bytes
        return min(self.free.bytes, max(self.allowed.bytes - self.reserved.bytes, 0))

    @property
    def segment(self) -> int:
        """What the driver was asked for on behalf of the request."""
        return segment_size(block_size(self.requested.bytes))

    @property
    def lacking(self) -> int:
        """Bytes that were missing for this one request; at least 1. Later requests of the run may lack more."""
        return max(self.segment - self.available, 1)

    @property
    def room(self) -> int:
        """What the allocator could have reserved in all."""
        return self.reserved.bytes + self.available

    @property
    def scattered(self) -> bool:
        """Whether what was in no tensor would have met the request, and was so much that fragmentation is likely."""
        return self.unallocated.bytes >= max(self.lacking, GOOD_SHARE * self.reserved.bytes)

    @property
    def limited(self) -> bool:
        """Whether the process's own limit alone stopped it: the driver had enough free."""
        return self.allowed is not None and self.free.bytes >= self.segment > self.available

    def cause(self, *, fragmented: bool, needed: int) -> Cause:
        """The first of the causes that alone was enough, for a run that `needed` so many bytes more."""
        if self.limited:
            return Cause.LIMIT
        if fragmented:
            return Cause.FRAGMENTATION
        return Cause.OTHERS if self.others.bytes >= max(self.lacking, needed) else Cause.DEMAND

    def to_json(self) -> dict[str, Any]:
        """Bytes in the middle of what is printed; facts that are not told are left out."""
        known = {
            "requested": self.requested,
            "free": self.free,
            "allocated": self.allocated,
            "unallocated": self.unallocated,
            "reserved": self.reserved,
            "private_pools": self.private_pools,
            "capacity": self.capacity,
            "process": self.process,
            "context": self.context,
            "others": self.others,
            "context_and_others": self.unexplained,
            "allowed": self.allowed,
        }
        body: dict[str, Any] = {name: value.bytes for name, value in known.items() if value is not None}
        return body | {
            "requested_interval": [self.requested.low, self.requested.high],
            "processes": [{"pid": other.pid, "bytes": other.held.bytes} for other in self.listed],
            "lacking": self.lacking,
            "room": self.room,
        }


def of_message(message: OomMessage) -> Shortage:
    """What a message says."""
    return Shortage(
        requested=message.requested,
        free=message.free,
        allocated=message.allocated,
        unallocated=message.unallocated,
        private_pools=message.private_pools,
        capacity=message.capacity,
        process=message.process,
        listed=message.others,
        allowed=message.allowed,
    )
