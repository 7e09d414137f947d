"""What a stretch of somebody's own code took: the answer of `watch`. No torch here."""

from dataclasses import dataclass

from vramplan.ledger import Ledger
from vramplan.record import Device
from vramplan.timeline import Timeline


@dataclass(frozen=True)
class Usage:
    """The memory of one device while some code ran; bytes."""

    device: Device
    before: int
    """Held when it began: models, optimizers and whatever else was alive."""
    peak: int
    """The highest of all moments, what was held before included."""
    after: int
    """Held when it ended."""
    reserved: int
    """The caching allocator's segments at their highest; 0 on cpu, where there is no such allocator."""
    ledger: Ledger
    """Phases and components, measured; empty on cuda, whose counters know neither."""
    timeline: Timeline
    """On cpu everything that was allocated and freed; on cuda the tensors that were alive at the end."""

    @property
    def growth(self) -> int:
        """The peak above what was held before."""
        return self.peak - self.before
