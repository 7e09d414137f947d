"""What a snapshot shows of one device: who held memory when it ran out and at the highest moment, in how many pieces.

The state at the failed request is worked out from the state at the end: the events after it are undone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vramplan.allocator import Rules, prepare, replay
from vramplan.ledger import Component
from vramplan.oom.frames import UNKNOWN, UNKNOWN_MOMENT, Frame, Stack, moment, owner, purpose
from vramplan.oom.printed import Printed
from vramplan.oom.shortage import Shortage
from vramplan.oom.snapshot import BlockState, Event, Segment, Snapshot, device_of
from vramplan.oom.stack_rules import Moment, Purpose
from vramplan.timeline import Alloc, EmptyCache, Free
from vramplan.timeline import Event as TimelineEvent

#: What the segments grow and shrink by.
_GROWS, _SHRINKS = frozenset({"segment_alloc", "segment_map"}), frozenset({"segment_free", "segment_unmap"})


class Held(NamedTuple):
    """A live block: bytes of the tensor, and where it was asked for."""

    bytes: int
    stack: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Live blocks that serve one purpose, asked for in one place."""

    words: str
    component: Component | None
    place: str
    """Of the innermost Python frame that is not torch's; empty without a stack."""
    bytes: int
    count: int
    largest: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Segments of one class."""

    name: str
    """`small`, `large`, or these of private pools."""
    segments: int
    bytes: int
    in_use: int
    largest_free: int
    """The largest free piece."""
    empty: int
    """Bytes in segments without a block in use."""

    @property
    def free(self) -> int:
        """Bytes in free pieces."""
        return self.bytes - self.in_use


@dataclass(frozen=True, slots=True)
class Usage:
    """One device of a snapshot."""

    device: int
    moment: Moment
    """Of the failed request; unknown without one."""
    shortage: Shortage | None
    """None when the snapshot has no failed request."""
    failures: int
    """How many requests failed."""
    purpose: Purpose
    place: str
    """Of the failed request."""
    held: tuple[Group, ...]
    """Live when the request failed, else when the snapshot was taken; the most bytes first."""
    peak: int
    """The most bytes that were live at once, as far back as the history goes; 0 without a history."""
    at_peak: tuple[Group, ...]
    pools: tuple[Pool, ...]
    """When the snapshot was taken."""
    reserved: int
    """When the request failed, else when the snapshot was taken."""
    events: int
    fits_expandable: bool | None
    """Whether the same history with expandable segments meets the request, by replay; None where replaying it as it
    was does not run out of memory either, because the history is not complete."""

    @property
    def live(self) -> int:
        """Bytes of all tensors."""
        return sum(group.bytes for group in self.held)

    def to_json(self) -> dict[str, Any]:
        """The `snapshot` object."""
        return {
            "device": self.device,
            "events": self.events,
            "failures": self.failures,
            "reserved": self.reserved,
            "live": self.live,
            "held": [_group_json(group) for group in self.held],
            "peak": {"bytes": self.peak, "held": [_group_json(group) for group in self.at_peak]},
            "pools": [
                {
                    "name": pool.name,
                    "segments": pool.segments,
                    "bytes": pool.bytes,
                    "in_use": pool.in_use,
                    "largest_free": pool.largest_free,
                    "empty": pool.empty,
                }
                for pool in self.pools
            ],
            "fits_expandable": self.fits_expandable,
        }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "what": group.words,
        "component": group.component.value if group.component else None,
        "place": group.place,
        "bytes": group.bytes,
        "count": group.count,
        "largest": group.largest,
    }


def usage(snapshot: Snapshot) -> Usage:
    """The device of the first failed request, or the fullest one."""
    device = device_of(snapshot)
    segments = [segment for segment in snapshot.segments if segment.device == device]
    trace = snapshot.traces[device] if device < len(snapshot.traces) else ()
    failed = [i for i, event in enumerate(trace) if event.action == "oom"]
    until = failed[0] if failed else len(trace)
    start = _live_at_start(segments, trace)
    live, at_peak = _run(start, trace[:until])
    reserved = sum(segment.size for segment in segments) - _grown(trace[until:])
    oom = trace[until] if failed else None
    held = live if oom else _final(segments)
    return Usage(
        device=device,
        moment=moment(oom.stack) if oom else UNKNOWN_MOMENT,
        shortage=_shortage(oom, segments, live, reserved, whole=until + 1 >= len(trace)) if oom else None,
        failures=len(failed),
        purpose=purpose(oom.stack) if oom else UNKNOWN,
        place=_place(oom.stack) if oom else "",
        held=_groups(held.values()),
        peak=sum(block.bytes for block in at_peak),
        at_peak=_groups(at_peak),
        pools=_pools(segments),
        reserved=reserved,
        events=len(trace),
        fits_expandable=_fits_expandable(start, trace[:until], oom, reserved) if oom else None,
    )


def _final(segments: Iterable[Segment]) -> dict[int, Held]:
    """Live blocks when the snapshot was taken, by address."""
    return {
        block.address: Held(block.requested, block.stack)
        for segment in segments
        for block in segment.blocks
        if block.state is not BlockState.FREE
    }


def _live_at_start(segments: Iterable[Segment], trace: Sequence[Event]) -> dict[int, Held]:
    """Live blocks before the first event: the events undone, the latest first."""
    live = _final(segments)
    for event in reversed(trace):
        if event.action == "alloc":
            live.pop(event.address, None)
        elif event.action == "free_completed":
            live[event.address] = Held(event.size, ())
    return live


def _run(start: Mapping[int, Held], trace: Iterable[Event]) -> tuple[dict[int, Held], tuple[Held, ...]]:
    """Live blocks after the events, and those at the highest moment, the beginning included."""
    events = list(trace)
    total = highest = sum(block.bytes for block in start.values())
    peak_after = 0
    live = dict(start)
    for i, event in enumerate(events, 1):
        total += _step(live, event)
        if total > highest:
            highest, peak_after = total, i
    at_peak = dict(start)
    for event in events[:peak_after]:
        _step(at_peak, event)
    return live, tuple(at_peak.values())


def _step(live: dict[int, Held], event: Event) -> int:
    """One event; by how much it changes what is live."""
    if event.action == "alloc":
        live[event.address] = Held(event.size, event.stack)
        return event.size
    if event.action == "free_completed" and (gone := live.pop(event.address, None)) is not None:
        return -gone.bytes
    return 0


def _grown(trace: Iterable[Event]) -> int:
    """By how much the segments grew in these events."""
    events = list(trace)
    return sum(e.size for e in events if e.action in _GROWS) - sum(e.size for e in events if e.action in _SHRINKS)


def _shortage(
    oom: Event, segments: Sequence[Segment], live: Mapping[int, Held], reserved: int, *, whole: bool
) -> Shortage:
    """What the snapshot tells of the failed request. Whole blocks are known only when nothing happened after it."""
    allocated = sum(s.in_use for s in segments) if whole else sum(block.bytes for block in live.values())
    return Shortage(
        requested=Printed.exact(oom.size),
        free=Printed.exact(oom.device_free),
        allocated=Printed.exact(allocated),
        unallocated=Printed.exact(max(reserved - allocated, 0)),
        private_pools=Printed.exact(sum(s.in_use for s in segments if s.private) if whole else 0),
        capacity=None,
        process=None,
        listed=(),
        allowed=None,
    )


def _groups(blocks: Iterable[Held]) -> tuple[Group, ...]:
    """Blocks of one purpose and place together; the most bytes first."""
    found: dict[tuple[str, Component | None, str], list[int]] = {}
    for block in blocks:
        what = purpose(block.stack)
        words = what.words if block.stack else "no stack recorded"
        found.setdefault((words, what.component, _place(block.stack)), []).append(block.bytes)
    groups = (Group(*key, bytes=sum(sizes), count=len(sizes), largest=max(sizes)) for key, sizes in found.items())
    return tuple(sorted(groups, key=lambda group: -group.bytes))


def _place(stack: Stack) -> str:
    frame = owner(stack)
    return frame.place if frame else ""


def _pools(segments: Iterable[Segment]) -> tuple[Pool, ...]:
    classes: dict[str, list[Segment]] = {}
    for segment in segments:
        name = ("small" if segment.small else "large") + (" private" if segment.private else "")
        classes.setdefault(name, []).append(segment)
    return tuple(_pool(name, classes[name]) for name in sorted(classes, reverse=True))


def _pool(name: str, segments: Sequence[Segment]) -> Pool:
    free = (block.size for segment in segments for block in segment.blocks if block.state is BlockState.FREE)
    return Pool(
        name=name,
        segments=len(segments),
        bytes=sum(segment.size for segment in segments),
        in_use=sum(segment.in_use for segment in segments),
        largest_free=max(free, default=0),
        empty=sum(segment.size for segment in segments if not segment.in_use),
    )


def _fits_expandable(start: Mapping[int, Held], trace: Sequence[Event], oom: Event, reserved: int) -> bool | None:
    """The history and the failed request replayed within what the device had, with and without expandable segments."""
    events = [*history(start, trace), Alloc(-1, oom.size, Component.UNKNOWN, "")]
    budget = reserved + oom.device_free
    if replay(events, budget=budget).oom is None:
        return None
    return replay(prepare(events, rules=Rules(expandable_segments=True)), budget=budget).oom is None


def history(start: Mapping[int, Held], trace: Iterable[Event]) -> list[TimelineEvent]:
    """The events as a timeline's: what was live before, then allocations, frees, and cached segments given back."""
    events: list[TimelineEvent] = []
    live: dict[int, int] = {}
    for number, (address, block) in enumerate(sorted(start.items())):
        live[address] = number
        events.append(Alloc(number, block.bytes, purpose(block.stack).component or Component.UNKNOWN, ""))
    number = len(live)
    for event in trace:
        if event.action == "alloc":
            live[event.address] = number
            events.append(Alloc(number, event.size, purpose(event.stack).component or Component.UNKNOWN, ""))
            number += 1
        elif event.action == "free_completed" and event.address in live:
            events.append(Free(live.pop(event.address)))
        elif event.action in _SHRINKS and not (events and isinstance(events[-1], EmptyCache)):
            events.append(EmptyCache())
    return events
