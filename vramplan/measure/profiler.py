"""The independent check of the tracker: PyTorch's own profiler, which hears every allocation of the CPU allocator.

It knows no names, but it misses nothing, temporaries inside kernels included, and it does not change what autograd
does, as a dispatch mode can. What it holds more than the tracker at a phase's peak is `unknown`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vramplan.ledger import Component, Phase

_MARK = "vramplan phase "


class PhaseMarks:
    """A meter that writes the phases into the profile."""

    def enter(self, phase: Phase) -> None:
        """Mark the start of `phase`."""
        with torch.profiler.record_function(_MARK + phase.value):
            pass

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Nothing: the profiler knows no names."""


def profile_peaks(run: Callable[[PhaseMarks], object]) -> Mapping[Phase, int]:
    """The high-water mark of each phase of `run`, in bytes above what was allocated when it began."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run(PhaseMarks())
    result: Any = profile.profiler
    changes: list[tuple[int, int | Phase]] = []
    _collect(result.kineto_results.experimental_event_tree(), changes)
    changes.sort(key=lambda change: change[0])
    return _peaks(changes)


def _collect(events: Any, changes: list[tuple[int, int | Phase]]) -> None:
    """(time, bytes taken or given back) and (time, phase entered) of an event tree."""
    from torch._C._profiler import _EventType

    stack = list(events)
    while stack:
        event = stack.pop()
        if event.tag == _EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
        elif event.name.startswith(_MARK):
            changes.append((event.start_time_ns, Phase(event.name.removeprefix(_MARK))))
        stack.extend(event.children)


def _peaks(changes: list[tuple[int, int | Phase]]) -> dict[Phase, int]:
    held = 0
    phase: Phase | None = None
    peaks: dict[Phase, int] = {}
    for _, change in changes:
        if isinstance(change, Phase):
            phase = change
        else:
            held += change
        if phase is not None:
            peaks[phase] = max(peaks.get(phase, held), held)
    return peaks
