import copy
from typing import Any

import pytest
from oom_samples import ADAPTER, LAYER, LOADING, LOSS, A, B, C, block, cause_of, dumped, event, fragmented, segment

import vramplan.oom.snapshot as reading
from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.oom.shortage import Cause
from vramplan.oom.snapshot import BlockState, device_of, read_snapshot
from vramplan.oom.usage import usage
from vramplan.units import MIB


def test_a_snapshot_is_typed() -> None:
    found = read_snapshot(dumped(fragmented()))
    assert [segment.size for segment in found.segments] == [100 * MIB, 80 * MIB]
    assert [block.state for block in found.segments[1].blocks] == [BlockState.FREE, BlockState.IN_USE, BlockState.FREE]
    assert found.segments[1].in_use == 40 * MIB
    # the allocator lists the innermost frame first
    assert [frame.function for frame in found.segments[0].blocks[0].stack] == [
        "<module>",
        "from_pretrained",
        "quantize_4bit",
    ]
    assert found.traces[0][-1].device_free == 30 * MIB


def test_fragmentation_is_found_and_replayed() -> None:
    found = usage(read_snapshot(dumped(fragmented())))
    shortage = found.shortage
    assert shortage is not None
    assert (shortage.requested.bytes, shortage.allocated.bytes) == (60 * MIB, 140 * MIB)
    assert (shortage.unallocated.bytes, shortage.lacking) == (40 * MIB, 30 * MIB)
    assert cause_of(shortage) is Cause.FRAGMENTATION
    assert found.fits_expandable is True
    assert (found.moment.phase, found.purpose.component) == (Phase.LOSS, Component.LOGITS)
    # at first 100 + 80, at last 100 + 40
    assert (found.peak, found.live) == (180 * MIB, 140 * MIB)
    at_peak = [(group.component, group.bytes) for group in found.at_peak]
    assert at_peak == [(Component.WEIGHTS, 100 * MIB), (Component.ACTIVATIONS, 80 * MIB)]
    (pool,) = found.pools
    assert (pool.segments, pool.free, pool.largest_free, pool.empty) == (2, 40 * MIB, 20 * MIB, 0)


def after_the_error() -> dict[str, Any]:
    """The same, dumped after the stack was unwound: the adapter is gone, its segment was given back."""
    snapshot = copy.deepcopy(fragmented())
    snapshot["device_traces"][0] += [
        event("free_requested", B + 20 * MIB, 40 * MIB),
        event("free_completed", B + 20 * MIB, 40 * MIB),
        event("segment_free", B, 80 * MIB),
        event("segment_alloc", C, 20 * MIB),
        event("alloc", C, 2 * MIB, LAYER),
    ]
    snapshot["segments"] = [
        snapshot["segments"][0],
        segment(C, [block(C, 2 * MIB, "active_allocated", LAYER), block(C + 2 * MIB, 18 * MIB)]),
    ]
    return snapshot


def test_what_happened_after_the_error_is_undone() -> None:
    found = usage(read_snapshot(dumped(after_the_error())))
    assert found.shortage is not None
    assert (found.reserved, found.live) == (180 * MIB, 140 * MIB)
    assert (found.shortage.allocated.bytes, found.shortage.unallocated.bytes) == (140 * MIB, 40 * MIB)
    assert [group.component for group in found.held] == [Component.WEIGHTS, Component.ADAPTERS]


def test_what_was_there_before_the_history_counts() -> None:
    """A history that begins after loading: the weights are known from the end, the freed blocks from their frees."""
    snapshot = fragmented()
    snapshot["device_traces"][0] = snapshot["device_traces"][0][9:]
    found = usage(read_snapshot(dumped(snapshot)))
    assert (found.peak, found.live) == (180 * MIB, 140 * MIB)
    assert found.at_peak[0].component is Component.WEIGHTS
    assert {group.words for group in found.at_peak if not group.place} == {"no stack recorded"}


def test_several_errors_and_none() -> None:
    snapshot = fragmented()
    snapshot["device_traces"][0].append(event("oom", 0, MIB, LOSS, device_free=0))
    assert usage(read_snapshot(dumped(snapshot))).failures == 2
    del snapshot["device_traces"][0][-2:]
    found = usage(read_snapshot(dumped(snapshot)))
    assert (found.failures, found.shortage, found.fits_expandable) == (0, None, None)
    assert found.live == 140 * MIB


def test_a_snapshot_without_history_still_tells_who_holds_what() -> None:
    snapshot = fragmented() | {"device_traces": [[]]}
    found = usage(read_snapshot(dumped(snapshot)))
    assert (found.live, found.reserved, found.events) == (140 * MIB, 180 * MIB, 0)
    only_segments = usage(read_snapshot(dumped(snapshot["segments"])))  # torch.cuda.memory_snapshot()
    assert only_segments.held == found.held


def test_demand_is_not_called_fragmentation() -> None:
    snapshot = fragmented()
    snapshot["device_traces"][0][-1] = event("oom", 0, 90 * MIB, LOSS, device_free=30 * MIB)
    found = usage(read_snapshot(dumped(snapshot)))
    assert found.shortage is not None
    assert (cause_of(found.shortage), found.fits_expandable) == (Cause.DEMAND, False)


def test_the_device_that_ran_out_is_explained() -> None:
    snapshot = fragmented()
    other = [segment | {"device": 1} for segment in fragmented()["segments"]]
    snapshot["segments"] = [*other, *other, *snapshot["segments"]]
    snapshot["device_traces"] = [snapshot["device_traces"][0], []]
    assert device_of(read_snapshot(dumped(snapshot))) == 0
    snapshot["device_traces"] = []
    assert device_of(read_snapshot(dumped(snapshot))) == 1


def test_older_snapshots_without_addresses_are_read() -> None:
    """Before torch 2.1 blocks tell neither their address nor a pool."""
    snapshot = fragmented()
    for part in snapshot["segments"]:
        del part["segment_pool_id"], part["is_expandable"]
        for each in part["blocks"]:
            del each["address"], each["requested_size"]
    found = read_snapshot(dumped(snapshot))
    assert [each.address for each in found.segments[1].blocks] == [B, B + 20 * MIB, B + 60 * MIB]


def test_a_small_pool_and_a_private_one_stand_apart() -> None:
    snapshot = fragmented()
    small = segment(C, [block(C, MIB, "active_awaiting_free", ADAPTER), block(C + MIB, MIB)], "small")
    snapshot["segments"] += [small, small | {"address": A * 8, "segment_pool_id": (0, 1)}]
    names = [(pool.name, pool.in_use) for pool in usage(read_snapshot(dumped(snapshot))).pools]
    assert names == [("small private", MIB), ("small", MIB), ("large", 140 * MIB)]


BROKEN: dict[str, Any] = {
    "no mapping": 5,
    "no segments": {},
    "segments of text": {"segments": "all"},
    "a segment of text": {"segments": ["one"]},
    "a segment without a type": {"segments": [{"total_size": 1}]},
    "a segment without a size": {"segments": [{"segment_type": "large"}]},
    "a negative size": {"segments": [segment(A, []) | {"total_size": -1}]},
    "a size of text": {"segments": [segment(A, []) | {"total_size": "9"}]},
    "a size that is true": {"segments": [segment(A, []) | {"total_size": True}]},
    "a size beyond 64 bits": {"segments": [segment(A, []) | {"total_size": 2**100}]},
    "a block in no state": {"segments": [segment(A, [block(A, 1, "asleep")])]},
    "frames of text": {"segments": [segment(A, [block(A, 1, "inactive") | {"frames": "f"}])]},
    "a frame of numbers": {"segments": [segment(A, [block(A, 1, "inactive", [{"filename": 1}])])]},
    "a trace of numbers": {"segments": [], "device_traces": [[5]]},
    "an event without a name": {"segments": [], "device_traces": [[{}]]},
}


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_what_is_no_snapshot_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="snapshot"):
        read_snapshot(dumped(value))


def test_sharing_does_not_multiply_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file in which a million blocks are one block, a thousand times."""
    monkeypatch.setattr(reading, "MOST_ROWS", 10_000)
    part = segment(A, [block(A, 1)] * 1000)
    with pytest.raises(UsageError, match="more than 10,000"):
        read_snapshot(dumped({"segments": [part] * 1000}))


def test_loading_and_frames_are_grouped_by_place() -> None:
    snapshot = {"segments": [segment(A, [block(A + i * MIB, MIB, "active_allocated", LOADING) for i in range(5)])]}
    (group,) = usage(read_snapshot(dumped(snapshot))).held
    assert (group.words, group.count, group.bytes) == ("quantised weights", 5, 5 * MIB)
    assert group.place == "functional.py:900 quantize_4bit"
