"""The allocator's own history of a run as a Timeline, and the replay of it checked against what was really reserved.

torch records every request and release (`torch.cuda.memory._record_memory_history`, torch 2.11-2.13) as entries of
`_snapshot()["device_traces"]`: action, address, requested size. Entries carry no phase; `Mark` counts requests instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vramplan.allocator import Rules, prepare, replay
from vramplan.ledger import Component
from vramplan.measure.cuda import Mark
from vramplan.timeline import Alloc, EmptyCache, Enter, Event, Free, Timeline

#: Entries kept: a step of a 32-layer model makes some 50,000, loading it some 10,000. The ring drops the oldest.
MAX_ENTRIES = 2_000_000


def history_timeline(trace: Sequence[Mapping[str, Any]], marks: Sequence[Mark]) -> Timeline:
    """Allocations and frees of one device's trace in order, the phases entered where the marks say.

    The history must begin with the process's first request. Releases are taken where they complete, as the allocator
    counts them. A segment given back means that the cache was emptied, by the program or before a retry.
    """
    return Timeline(tuple(_events(trace, marks)))


def _events(trace: Sequence[Mapping[str, Any]], marks: Sequence[Mark]) -> Iterator[Event]:
    live: dict[int, int] = {}
    allocations = frees = 0
    waiting = list(reversed(marks))
    for entry in trace:
        while waiting and waiting[-1].allocations <= allocations and waiting[-1].frees <= frees:
            yield Enter(waiting.pop().phase)
        action = entry["action"]
        if action == "alloc":
            live[entry["addr"]] = allocations
            yield Alloc(allocations, entry["size"], Component.UNKNOWN, "")
            allocations += 1
        elif action == "free_completed":
            frees += 1
            if (block := live.pop(entry["addr"], None)) is not None:
                yield Free(block)
        elif action in ("segment_free", "segment_unmap"):  # the second where segments are expandable
            yield EmptyCache()
    yield from (Enter(mark.phase) for mark in reversed(waiting))


def check_replay(
    trace: Sequence[Mapping[str, Any]], marks: Sequence[Mark], *, allocated: int, reserved: int, rules: Rules
) -> dict[str, Any]:
    """The replayed allocator's peaks beside the true ones (`allocated`, `reserved`), for the record.

    `rules` are those of the allocator that ran.
    """
    if len(trace) >= MAX_ENTRIES:
        return {"events": len(trace), "note": "the history is longer than what is kept: not replayed"}
    played = replay(prepare(history_timeline(trace, marks).parts, rules=rules))
    return {
        "events": len(trace),
        "allocated": allocated,
        "replayed_allocated": max((mark.allocated for mark in played.marks), default=0),
        "reserved": reserved,
        "replayed_reserved": played.reserved,
        "replayed_driver_calls": played.driver_calls,
    }
