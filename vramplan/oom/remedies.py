"""What can be done against a shortage that leaves the run as it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vramplan.oom.shortage import Shortage


class Judgement(StrEnum):
    """Whether something alone is enough."""

    YES = "yes"
    PERHAPS = "perhaps"
    NO = "no"


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
    judgement: Judgement
    """Whether it alone makes room for the failed request, and for what the scenario would still ask for."""

    @property
    def label(self) -> str:
        """What to do, and how."""
        return f"{self.what} ({self.how})" if self.how else self.what

    def to_json(self) -> dict[str, Any]:
        """The element of the answer's `remedies`."""
        return {
            "name": self.name,
            "label": self.label,
            "saves": self.saves,
            "enough": self.enough,
            "judgement": self.judgement.value,
        }


def fragmentation(shortage: Shortage, replayed: bool | None) -> Judgement:
    """Whether expandable segments would have met the request: no more than what was in no tensor could have.

    `replayed` is the answer of a replay with them, where there is one.
    """
    if shortage.unallocated.bytes < shortage.lacking:
        return Judgement.NO
    if replayed is None:
        return Judgement.YES if shortage.scattered else Judgement.PERHAPS
    return Judgement.YES if replayed else Judgement.NO


def remedies(shortage: Shortage, needed: int, replayed: bool | None, variable: str) -> Iterator[Remedy]:
    """What can be done outside a run that `needed` so many bytes more; `replayed` as in `fragmentation`."""

    def remedy(name: str, what: str, how: str, saves: int, at_best: Judgement = Judgement.YES) -> Remedy:
        enough = at_best is Judgement.YES and saves >= shortage.lacking
        return Remedy(name, what, how, saves, enough, at_best if saves >= needed else Judgement.NO)

    if shortage.allowed is not None and shortage.free.bytes > shortage.available:
        more = shortage.free.bytes - shortage.available
        yield remedy("limit", "raise the process's own limit", "set_per_process_memory_fraction", more)
    if shortage.unallocated.bytes:
        how = f"{variable}=expandable_segments:True before the start"
        likely = fragmentation(shortage, replayed)
        yield remedy("expandable-segments", "expandable segments", how, shortage.unallocated.bytes, likely)
    if shortage.others.bytes and not shortage.limited:
        yield remedy("other-processes", "end the other processes on the card", "", shortage.others.bytes)
