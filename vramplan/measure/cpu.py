"""The CPU meter: a real run under the tracker, checked by the profiler, as a ledger."""

from collections.abc import Callable, Mapping

from vramplan.ledger import Basis, Component, Entry, Ledger, Phase, merge_entries
from vramplan.measure.bnb_kernels import cpu_opener
from vramplan.measure.profiler import PhaseMarks, profile_peaks
from vramplan.measure.tracker import Tracker


class CpuMeter(Tracker):  # type: ignore[no-untyped-call]
    """A tracker of CPU memory: `with meter:` around set-up and two steps, then `check`, then `ledger`."""

    def __init__(self, *, vocab: int) -> None:
        super().__init__(vocab=vocab, device="cpu", openers={"bitsandbytes": cpu_opener()})
        self._peaks: Mapping[Phase, int] = {}

    def check(self, step: Callable[[PhaseMarks], object]) -> None:
        """Run one more step under the profiler, without the tracker: its peaks are the independent second opinion."""
        self._peaks = profile_peaks(step)

    def ledger(self) -> Ledger:
        """Every phase's high-water mark by component, all measured; what only the profiler saw is `unknown`."""
        seen = self.timeline().ledger(dict.fromkeys(Component, Basis.MEASURED))
        unknown = tuple(
            Entry(phase, Component.UNKNOWN, missing, Basis.MEASURED, "seen by the profiler, not by the tracker")
            for phase, peak in self._peaks.items()
            if (missing := seen.steady + peak - seen.allocated(phase))
        )
        return Ledger(merge_entries((*seen.entries, *unknown)), seen.steady)
