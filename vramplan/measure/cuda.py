"""The CUDA meter: reads the caching allocator's own counters at phase marks, and nothing else.

The counters live on the host, so a mark waits for nothing: no synchronisation inside a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vramplan.ledger import Component, Phase
from vramplan.training.meter import Meter


class Counters(NamedTuple):
    """The allocator at one moment; bytes, the peaks since they were last reset."""

    allocated: int
    allocated_peak: int
    """`max_memory_allocated`: whole blocks."""
    requested_peak: int
    """What tensors asked for: whole blocks less rounding and unsplit remainders."""
    reserved: int
    reserved_peak: int
    allocations: int
    """Requests since the process began."""
    frees: int
    requested: int
    """What tensors that live asked for."""


class Allocator(Protocol):
    """What is read of an allocator."""

    def counters(self) -> Counters:
        """The counters now."""

    def reset_peaks(self) -> None:
        """Let every peak start again from what is held now."""


class CudaAllocator:
    """torch's CUDA caching allocator on the current device."""

    def counters(self) -> Counters:
        """The counters now (torch 2.11-2.13 `torch.cuda.memory_stats`)."""
        return counters_of(torch.cuda.memory_stats())

    def reset_peaks(self) -> None:
        """Reset all peaks: allocated, requested and reserved alike."""
        torch.cuda.reset_peak_memory_stats()


def counters_of(stats: Mapping[str, int]) -> Counters:
    """The counters in what `torch.cuda.memory_stats` returns; an allocator that served nothing has no keys."""

    def get(key: str) -> int:
        return stats.get(key, 0)

    return Counters(
        allocated=get("allocated_bytes.all.current"),
        allocated_peak=get("allocated_bytes.all.peak"),
        requested_peak=get("requested_bytes.all.peak"),
        reserved=get("reserved_bytes.all.current"),
        reserved_peak=get("reserved_bytes.all.peak"),
        allocations=get("allocation.all.allocated"),
        frees=get("allocation.all.freed"),
        requested=get("requested_bytes.all.current"),
    )


@dataclass(slots=True)
class PhasePeak:
    """The high-water marks of one phase."""

    allocated: int = 0
    requested: int = 0
    reserved: int = 0
    """Running high-water mark of the run up to the end of the phase, as if never reset."""


class Mark(NamedTuple):
    """A phase began after so many allocations and frees: exact places in the allocator's history."""

    phase: Phase
    allocations: int
    frees: int


@dataclass
class CudaMeter:
    """A meter of phases: `enter` closes the phase that ends, `close` the last one. Names mean nothing to it."""

    allocator: Allocator
    peaks: dict[Phase, PhasePeak] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    _phase: Phase | None = None
    _reserved: int = 0

    def enter(self, phase: Phase) -> None:
        """From now on the high-water mark belongs to `phase`."""
        now = self.close()
        self._phase = phase
        self.marks.append(Mark(phase, now.allocations, now.frees))

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Nothing: the allocator knows no names."""

    def close(self) -> Counters:
        """End the current phase: note its peaks, and let them start again.

        Resetting also resets the peak of reserved, which is meant to be the run's: so it is carried along here.
        """
        now = self.allocator.counters()
        self._reserved = max(self._reserved, now.reserved_peak)
        if self._phase is not None:
            peak = self.peaks.setdefault(self._phase, PhasePeak())
            peak.allocated = max(peak.allocated, now.allocated_peak)
            peak.requested = max(peak.requested, now.requested_peak)
            peak.reserved = self._reserved
        self._phase = None
        self.allocator.reset_peaks()
        return now

    def forget_steps(self) -> None:
        """Drop the peaks of everything but the load phase: what was seen was a warm-up. Reserved is not forgotten."""
        self.close()
        self.peaks = {phase: peak for phase, peak in self.peaks.items() if phase is Phase.LOAD}


class Several:
    """A meter that tells several."""

    def __init__(self, *meters: Meter) -> None:
        self._meters = meters

    def enter(self, phase: Phase) -> None:
        """Tell all."""
        for meter in self._meters:
            meter.enter(phase)

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        """Tell all."""
        for meter in self._meters:
            meter.name(tensor, component, label)


#: Names in the record -> keys of `torch.cuda.memory_stats`.
_FACTS = {
    "segments": "segment.all.current",
    "segments_peak": "segment.all.peak",
    "inactive_split_bytes": "inactive_split_bytes.all.current",
    "inactive_split_bytes_peak": "inactive_split_bytes.all.peak",
    "retries": "num_alloc_retries",
    "ooms": "num_ooms",
}


def allocator_facts(stats: Mapping[str, int]) -> dict[str, int]:
    """The allocator's counters that a record keeps: segments, bytes in free pieces of used ones, retries, OOMs."""
    return {name: stats.get(key, 0) for name, key in _FACTS.items()}
