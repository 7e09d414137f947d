"""PyTorch's out-of-memory message, in every wording since 2.0.

c10/cuda/CUDACachingAllocator.cpp, `DeviceCachingAllocator::malloc`:
- 2.0: `(GPU 0; 14.76 GiB total capacity; 13.22 GiB already allocated; ... reserved in total by PyTorch)`
- 2.1: `GPU 0 has a total capacty of ...` (so spelled), what other processes hold, reserved but unallocated
- 2.2 on: `capacity`; the advice names expandable segments instead of max_split_size_mb
- 2.9 on: the same with PYTORCH_ALLOC_CONF
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vramplan.allocator_settings import USUAL_VARIABLE
from vramplan.errors import UsageError
from vramplan.oom.printed import SIZE, Printed

#: What every wording begins with. ROCm builds of torch print HIP for CUDA (torch/utils/hipify).
HEAD = re.compile(r"(?:CUDA|HIP) out of memory\. Tried to allocate")
#: A terminal breaks the message at its width, a browser at a word: so many lines are put together at the most.
MOST_LINES = 16

_MODERN = re.compile(
    rf"(?:CUDA|HIP) out of memory\. Tried to allocate (?P<requested>{SIZE})\. GPU (?P<gpu>\d{{1,6}})"
    rf" has a total capaci?ty of (?P<capacity>{SIZE}) of which (?P<free>{SIZE}) is free\. (?P<between>.{{0,20000}}?)"
    rf"Of the allocated memory (?P<allocated>{SIZE}) is allocated by PyTorch,"
    rf"(?: with (?P<pools>{SIZE}) allocated in private pools \(e\.g\., CUDA Graphs\),)?"
    rf" and (?P<unallocated>{SIZE}) is reserved by PyTorch but unallocated"
)
_OLD = re.compile(
    rf"(?:CUDA|HIP) out of memory\. Tried to allocate (?P<requested>{SIZE}) \(GPU (?P<gpu>\d{{1,6}});"
    rf" (?P<capacity>{SIZE}) total capacity; (?P<allocated>{SIZE}) already allocated; (?P<free>{SIZE}) free;"
    rf"(?: (?P<allowed>{SIZE}) allowed;)? (?P<reserved>{SIZE}) reserved in total by PyTorch\)"
)
_THIS = re.compile(rf"this process has ({SIZE}) memory in use")
_OTHER = re.compile(rf"Process (\d{{1,12}}) has ({SIZE}) memory in use")
#: NVML_VALUE_NOT_AVAILABLE (nvml.h): all bits set, of what Windows' driver model and WSL do not tell.
_NOT_AVAILABLE = 2**64 - 1
#: HIP's in ROCm builds; the short one since 2.9.
_VARIABLE = re.compile(r"PYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF")
_ALLOWED = re.compile(rf"({SIZE}) allowed;")


@dataclass(frozen=True, slots=True)
class OtherProcess:
    """Somebody else on the card."""

    pid: int
    held: Printed


@dataclass(frozen=True, slots=True)
class OomMessage:
    """What PyTorch says when its allocator gives up; cached segments have been given back before."""

    gpu: int
    """The device's number in the process."""
    requested: Printed
    capacity: Printed
    free: Printed
    """What the driver had left."""
    allocated: Printed
    """By tensors, private pools included."""
    unallocated: Printed
    """Reserved by PyTorch but in no tensor."""
    private_pools: Printed
    """Of `allocated`, in private pools such as those of CUDA graphs."""
    process: Printed | None
    """All that this process holds on the card, context included; None where the driver did not tell."""
    others: tuple[OtherProcess, ...]
    allowed: Printed | None
    """The process's own limit (`set_per_process_memory_fraction`); None without one."""
    variable: str = USUAL_VARIABLE
    """The environment variable of the allocator's settings, as the message names it."""

    @property
    def reserved(self) -> Printed:
        """What PyTorch's allocator holds."""
        return self.allocated + self.unallocated


def read_message(lines: Sequence[str]) -> OomMessage:
    """The message that begins in the first of `lines`, however it was broken into lines.

    Raises a UsageError for one that is cut off or that no version prints.
    """
    for glue in ("", " "):
        text = ""
        for line in lines[:MOST_LINES]:
            text = f"{text}{glue}{line.rstrip(chr(10) + chr(13))}" if text else line.rstrip()
            text = re.sub(r"\s+", " ", text)
            if (match := _MODERN.search(text)) is not None:
                return replace(_modern(match), variable=_variable(lines))
            if (match := _OLD.search(text)) is not None:
                return replace(_old(match), variable=_variable(lines))
    head = HEAD.search(lines[0])
    shown = lines[0][head.start() if head else 0 :].strip()[:100]
    raise UsageError(
        f"the out-of-memory message is cut off or in an unknown wording: '{shown}'",
        hint="give the whole message: from 'CUDA out of memory' to 'reserved by PyTorch but unallocated'",
    )


def _variable(lines: Sequence[str]) -> str:
    """The variable that the message's advice names, which follows the sizes; the usual one where it has none."""
    named = _VARIABLE.search("".join(line.strip() for line in lines[:MOST_LINES]))
    return named[0] if named else USUAL_VARIABLE


def _modern(match: re.Match[str]) -> OomMessage:
    between = match["between"]
    this, allowed = _told(_THIS.search(between)), _told(_ALLOWED.search(between))
    capacity, free, allocated, unallocated = (
        Printed.read(match[name]) for name in ("capacity", "free", "allocated", "unallocated")
    )
    listed = tuple(OtherProcess(int(pid), Printed.read(held)) for pid, held in _OTHER.findall(between))
    own = None if this else _own(listed, allocated + unallocated, capacity.less(free))
    return OomMessage(
        gpu=int(match["gpu"]),
        requested=Printed.read(match["requested"]),
        capacity=capacity,
        free=free,
        allocated=allocated,
        unallocated=unallocated,
        private_pools=Printed.read(match["pools"]) if match["pools"] else Printed.exact(0),
        process=this or (own.held if own else None),
        others=tuple(process for process in listed if process is not own),
        allowed=allowed,
    )


def _told(found: re.Match[str] | None) -> Printed | None:
    """The size in the match; None without one, and where the driver did not know it."""
    size = Printed.read(found[1]) if found else None
    return None if size is None or size.high >= _NOT_AVAILABLE else size


def _own(listed: Sequence[OtherProcess], reserved: Printed, taken: Printed) -> OtherProcess | None:
    """The listed process that is this one: a container's process does not know the number that the driver gives it.

    None where all that are listed have room on the card beside what this process's allocator holds.
    """
    if sum(process.held.low for process in listed) + reserved.low <= taken.high:
        return None
    return min((one for one in listed if one.held.high >= reserved.low), key=lambda one: one.held.low, default=None)


def _old(match: re.Match[str]) -> OomMessage:
    allocated, reserved = Printed.read(match["allocated"]), Printed.read(match["reserved"])
    return OomMessage(
        gpu=int(match["gpu"]),
        requested=Printed.read(match["requested"]),
        capacity=Printed.read(match["capacity"]),
        free=Printed.read(match["free"]),
        allocated=allocated,
        unallocated=reserved.less(allocated),
        private_pools=Printed.exact(0),
        process=None,
        others=(),
        allowed=Printed.read(match["allowed"]) if match["allowed"] else None,
    )
