"""What a replay tells: high-water marks, what the memory consisted of there, and where it ran out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vramplan.ledger import Basis, Component, Entry, Ledger, Phase


@dataclass(frozen=True, slots=True)
class Composition:
    """What the device memory of the process consisted of at one instant, in bytes."""

    raw: int
    """tensors"""
    rounding: int
    """each block rounded up to 512 bytes"""
    unsplit: int
    """blocks handed out larger than asked, because the remainder was too small to be a block"""
    cached: int
    """free blocks, kept for later"""

    @property
    def allocated(self) -> int:
        """What `torch.cuda.memory_allocated` would say: whole blocks."""
        return self.raw + self.rounding + self.unsplit

    @property
    def reserved(self) -> int:
        """What `torch.cuda.memory_reserved` would say: whole segments."""
        return self.allocated + self.cached


@dataclass(frozen=True, slots=True)
class PhaseMark:
    """The high-water marks of one phase."""

    phase: Phase
    moment: Composition
    """when allocated was highest in the phase, in the latest step that has it"""
    held: tuple[tuple[Component, int], ...]
    """each component's bytes at that moment; `ALLOCATOR` is rounding and unsplit remainders; adds up to allocated"""
    reserved: int
    """the highest reserved of the run up to the end of the phase (`max_memory_reserved`, never reset)"""

    @property
    def allocated(self) -> int:
        """`max_memory_allocated` of the phase: whole blocks."""
        return self.moment.allocated


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The request that the budget could not hold, cached segments having been given back before."""

    phase: Phase
    label: str
    component: Component
    requested: int
    """raw bytes of the tensor"""
    segment: int
    """bytes that the driver was asked for on its behalf: a segment, or with expandable segments what pages lacked"""
    allocated: int
    reserved: int
    budget: int


class Growth(NamedTuple):
    """After the event of that index (in `Timeline.events()`), so many bytes were reserved."""

    event: int
    reserved: int


@dataclass(frozen=True)
class Replay:
    """A timeline as the caching allocator lives it. Up to the failing request when `oom` is not None."""

    marks: tuple[PhaseMark, ...]
    """one per phase, in the order of `Phase`"""
    steady: int
    """allocated at the end, whole blocks"""
    growth: tuple[Growth, ...]
    """reserved whenever it changed: a step function"""
    driver_calls: int
    """`cudaMalloc` calls, or mappings with expandable segments"""
    retries: int
    """how often cached segments had to be given back before a request could be met (`num_alloc_retries`)"""
    oom: OutOfMemory | None

    @property
    def peak(self) -> PhaseMark:
        """The mark with the most allocated bytes, the earliest phase if several share it."""
        return max(self.marks, key=lambda mark: mark.allocated)

    @property
    def reserved(self) -> int:
        """The highest reserved of the run."""
        return max((mark.reserved for mark in self.marks), default=0)

    def ledger(self, basis: Mapping[Component, Basis]) -> Ledger:
        """The marks as a ledger whose phases add up to the allocated bytes of whole blocks.

        A component without a basis of its own is `modelled`.
        """
        entries = tuple(
            Entry(mark.phase, component, size, basis.get(component, Basis.MODELLED))
            for mark in self.marks
            for component, size in mark.held
            if size
        )
        return Ledger(entries, steady=self.steady)
