"""A snapshot of PyTorch's caching allocator (`torch.cuda.memory._dump_snapshot`), typed.

The fields: docstring of `torch.cuda.memory._snapshot`, torch/cuda/_memory_viz.py (torch 2.13; the same since 2.1).
Nothing else of the pickle is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from vramplan.errors import UsageError
from vramplan.oom.frames import Frame
from vramplan.oom.plain_pickle import Plain, read_plain

#: Blocks, events and frames that are looked at together; a pickle can share one list a million times.
MOST_ROWS = 5_000_000
#: Sizes and addresses fit into 64 bits.
_LARGEST = 2**63
_HINT = "give the file that torch.cuda.memory._dump_snapshot wrote"


class BlockState(StrEnum):
    """What the allocator does with a block."""

    IN_USE = "active_allocated"
    AWAITING_FREE = "active_awaiting_free"
    AWAITING_FREE_PENDING = "active_pending_free"  # torch 2.0 to 2.3 (_memory_viz.py)
    FREE = "inactive"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a segment."""

    address: int
    size: int
    requested: int
    """Bytes of the tensor; `size` where the snapshot does not tell."""
    state: BlockState
    stack: tuple[Frame, ...]
    """Where it was asked for, the outermost frame first; empty where no history was recorded."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Memory that the allocator holds in one piece."""

    device: int
    size: int
    small: bool
    """Whether it serves requests up to 1 MiB."""
    expandable: bool
    private: bool
    """Whether it is of a private pool, as CUDA graphs have."""
    blocks: tuple[Block, ...]

    @property
    def in_use(self) -> int:
        """Bytes in blocks that are not free."""
        return sum(block.size for block in self.blocks if block.state is not BlockState.FREE)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the allocator did."""

    action: str
    """`alloc`, `free_completed`, `segment_alloc`, `oom`, ... ; an action of a later version is kept as it is called."""
    address: int
    """0 for `oom`."""
    size: int
    stack: tuple[Frame, ...]
    device_free: int
    """What the driver still had, for `oom`; otherwise 0."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The allocator of every device at one moment, and what it did before."""

    segments: tuple[Segment, ...]
    traces: tuple[tuple[Event, ...], ...]
    """One per device; empty where no history was recorded."""


def read_snapshot(data: bytes) -> Snapshot:
    """The snapshot in a pickle, of which nothing is executed. Raises a UsageError for anything else."""
    return _Reader().snapshot(read_plain(data))


class _Reader:
    """Checks types on the way; counts rows, and reads each shared stack once."""

    def __init__(self) -> None:
        self._rows = 0
        self._stacks: dict[int, tuple[Frame, ...]] = {}
        self._frames: dict[int, Frame] = {}

    def snapshot(self, value: Plain) -> Snapshot:
        if isinstance(value, list):  # `torch.cuda.memory_snapshot()`: the segments alone
            return Snapshot(self._segments(value), ())
        if not isinstance(value, dict) or "segments" not in value:
            raise UsageError("the pickle is no memory snapshot: it has no 'segments'", hint=_HINT)
        traces = _rows(value.get("device_traces", []), "device_traces")
        return Snapshot(self._segments(value["segments"]), tuple(self._trace(trace) for trace in traces))

    def _segments(self, value: Plain) -> tuple[Segment, ...]:
        return tuple(self._segment(_mapping(row, "segments")) for row in self._counted(value, "segments"))

    def _segment(self, row: Mapping[str | int, Plain]) -> Segment:
        kind = row.get("segment_type")
        if kind not in ("small", "large"):
            raise UsageError(f"the snapshot has a segment of type {kind!r}", hint=_HINT)
        address = _number(row, "address", 0)
        blocks = []
        for item in self._counted(row.get("blocks", []), "blocks"):
            block = _mapping(item, "blocks")
            size = _number(block, "size")
            blocks.append(
                Block(
                    address=_number(block, "address", address),
                    size=size,
                    requested=_number(block, "requested_size", size),
                    state=_state(block),
                    stack=self._stack(block.get("frames")),
                )
            )
            address += size  # before torch 2.1 a block does not tell its address: blocks stand side by side
        pool = row.get("segment_pool_id", (0, 0))
        return Segment(
            device=_number(row, "device", 0),
            size=_number(row, "total_size"),
            small=kind == "small",
            expandable=row.get("is_expandable") is True,
            private=isinstance(pool, tuple) and pool != (0, 0),
            blocks=tuple(blocks),
        )

    def _trace(self, value: Plain) -> tuple[Event, ...]:
        return tuple(self._event(_mapping(row, "device_traces")) for row in self._counted(value, "device_traces"))

    def _event(self, row: Mapping[str | int, Plain]) -> Event:
        action = row.get("action")
        if not isinstance(action, str):
            raise UsageError(f"the snapshot has an event called {str(action)[:40]!r}", hint=_HINT)
        return Event(
            action=action,
            address=_number(row, "addr", 0),
            size=_number(row, "size", 0),
            stack=self._stack(row.get("frames")),
            device_free=_number(row, "device_free", 0),
        )

    def _stack(self, value: Plain) -> tuple[Frame, ...]:
        """The allocator lists the innermost frame first."""
        if value is None:
            return ()
        known = self._stacks.get(id(value))  # the snapshot keeps every list alive, so an id stays its own
        if known is None:
            rows = self._counted(value, "frames")
            known = self._stacks[id(value)] = tuple(self._frame(_mapping(row, "frames")) for row in reversed(rows))
        return known

    def _frame(self, row: Mapping[str | int, Plain]) -> Frame:
        frame = self._frames.get(id(row))
        if frame is None:
            file, name = row.get("filename", ""), row.get("name", "")
            if not isinstance(file, str) or not isinstance(name, str):
                raise UsageError("the snapshot has a stack frame without names", hint=_HINT)
            frame = self._frames[id(row)] = Frame(file[:500], _number(row, "line", 0), name[:500])
        return frame

    def _counted(self, value: Plain, where: str) -> list[Plain]:
        rows = _rows(value, where)
        self._rows += len(rows)
        if self._rows > MOST_ROWS:
            raise UsageError(
                f"the snapshot has more than {MOST_ROWS:,} blocks, events and frames",
                hint="record less: torch.cuda.memory._record_memory_history(max_entries=100000)",
            )
        return rows


def _rows(value: Plain, where: str) -> list[Plain]:
    if not isinstance(value, list):
        raise UsageError(f"the snapshot's '{where}' is a {type(value).__name__}, not a list", hint=_HINT)
    return value


def _mapping(value: Plain, where: str) -> dict[str | int, Plain]:
    if not isinstance(value, dict):
        raise UsageError(f"the snapshot has a {type(value).__name__} among '{where}'", hint=_HINT)
    return value


def _number(row: Mapping[str | int, Plain], key: str, default: int | None = None) -> int:
    value = row.get(key, default)
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise UsageError(f"the snapshot's '{key}' is {str(value)[:40]}, not a number of bytes", hint=_HINT)
    return value


def _state(block: Mapping[str | int, Plain]) -> BlockState:
    try:
        return BlockState(str(block.get("state")))
    except ValueError as error:
        raise UsageError(f"the snapshot has a block that is {str(block.get('state'))[:40]!r}", hint=_HINT) from error


def device_of(snapshot: Snapshot) -> int:
    """The device to explain: the first on which memory ran out, else the one that holds most."""
    for device, trace in enumerate(snapshot.traces):
        if any(event.action == "oom" for event in trace):
            return device
    held: dict[int, int] = {}
    for segment in snapshot.segments:
        held[segment.device] = held.get(segment.device, 0) + segment.size
    return max(held, key=lambda device: held[device], default=0)
