"""What can be done against a shortage that leaves the run as it is."""

from collections.abc import Iterator
from dataclasses import dataclass

from vramplan.oom.shortage import Cause, Shortage


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to do that leaves the run as it is."""

    name: str
    what: str
    how: str
    """What to write or to call; empty where `what` says it."""
    saves: int
    enough: bool
    """Whether it alone makes room for the failed request."""

    @property
    def label(self) -> str:
        """What to do, and how."""
        return f"{self.what} ({self.how})" if self.how else self.what


def remedies(shortage: Shortage, expandable: bool | None, variable: str) -> Iterator[Remedy]:
    """What can be done outside the run; `expandable` is the replay's answer where there is one."""
    lacking = shortage.lacking
    if shortage.allowed is not None and shortage.free.bytes > shortage.available:
        more = shortage.free.bytes - shortage.available
        what = "raise the process's own limit"
        yield Remedy("limit", what, "set_per_process_memory_fraction", more, more >= lacking)
    if shortage.unallocated.bytes:
        saves = shortage.unallocated.bytes
        enough = shortage.scattered if expandable is None else expandable
        how = f"{variable}=expandable_segments:True before the start"
        yield Remedy("expandable-segments", "expandable segments", how, saves, enough)
    if shortage.others.bytes and shortage.cause is not Cause.LIMIT:
        others = shortage.others.bytes
        yield Remedy("other-processes", "end the other processes on the card", "", others, others >= lacking)
