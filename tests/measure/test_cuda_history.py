"""The allocator's history as torch writes it, turned into a timeline and replayed."""

from typing import Any

from vramplan.allocator import Rules
from vramplan.ledger import Component, Phase
from vramplan.measure.cuda import Mark
from vramplan.measure.cuda_history import check_replay, history_timeline
from vramplan.timeline import Alloc, EmptyCache, Enter, Free
from vramplan.units import MIB


def entry(action: str, address: int = 0, size: int = 0) -> dict[str, Any]:
    place = "device_free" if action == "oom" else "addr"  # torch/csrc/cuda/Module.cpp
    return {"action": action, place: address, "size": size, "frames": [], "stream": 0, "time_us": 1}


# As torch 2.13 writes it: the segment first, then the request; a release is requested, then completed.
TRACE = [
    entry("segment_alloc", 4096, 20 * MIB),
    entry("alloc", 4096, 6 * MIB),
    entry("free_requested", 4096, 6 * MIB),
    entry("free_completed", 4096, 6 * MIB),
    entry("alloc", 4096, 5 * MIB),
    entry("segment_free", 8192, 2 * MIB),
    entry("segment_alloc", 10**9, 30 * MIB),
    entry("alloc", 10**9, 30 * MIB - 1),
    entry("oom", 123, 99),
]
MARKS = [Mark(Phase.LOAD, 0, 0), Mark(Phase.FORWARD, 1, 1)]


def test_requests_releases_and_phases_keep_their_order() -> None:
    assert history_timeline(TRACE, MARKS).parts == (
        Enter(Phase.LOAD),
        Alloc(0, 6 * MIB, Component.UNKNOWN, ""),
        Free(0),
        Enter(Phase.FORWARD),
        Alloc(1, 5 * MIB, Component.UNKNOWN, ""),
        EmptyCache(),
        Alloc(2, 30 * MIB - 1, Component.UNKNOWN, ""),
    )


def test_pages_that_an_expandable_segment_gives_back_mean_an_emptied_cache_too() -> None:
    # torch 2.11 `release_expandable_segment`, `unmap_block`: segment_map and segment_unmap instead of alloc and free
    mapped = {"segment_alloc": "segment_map", "segment_free": "segment_unmap"}
    expandable = [row | {"action": mapped.get(row["action"], row["action"])} for row in TRACE]
    assert history_timeline(expandable, MARKS) == history_timeline(TRACE, MARKS)


def test_a_phase_entered_at_the_end_is_not_lost() -> None:
    assert history_timeline(TRACE[:2], MARKS).parts[-1] == Enter(Phase.FORWARD)


def test_the_replay_reserves_what_the_history_reserved() -> None:
    check = check_replay(TRACE, MARKS, allocated=0, reserved=50 * MIB, rules=Rules(youngest_first=True))
    assert check["replayed_reserved"] == check["reserved"]  # 20 MiB for both small requests, 30 MiB for the large one
    assert check["replayed_allocated"] == 35 * MIB
    assert check["replayed_driver_calls"] == 2
