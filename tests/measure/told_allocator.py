"""An allocator whose memory is set by hand; its peaks behave as those of torch's do."""

from vramplan.measure.cuda import Counters, counters_of


class Told:
    """An allocator whose memory is set by hand; peaks behave as torch's do, reset to what is held."""

    def __init__(self) -> None:
        kinds = ("allocated", "requested", "reserved")
        self.stats = dict.fromkeys([f"{kind}_bytes.all.{which}" for kind in kinds for which in ("current", "peak")], 0)
        self.stats |= {"allocation.all.allocated": 0, "allocation.all.freed": 0}

    def take(self, requested: int, block: int, segment: int = 0) -> None:
        for kind, size in (("requested", requested), ("allocated", block), ("reserved", segment)):
            self._change(kind, size)
        self.stats["allocation.all.allocated"] += 1

    def give(self, requested: int, block: int, segment: int = 0) -> None:
        for kind, size in (("requested", requested), ("allocated", block), ("reserved", segment)):
            self._change(kind, -size)
        self.stats["allocation.all.freed"] += 1

    def _change(self, kind: str, by: int) -> None:
        now, peak = f"{kind}_bytes.all.current", f"{kind}_bytes.all.peak"
        self.stats[now] += by
        self.stats[peak] = max(self.stats[peak], self.stats[now])

    def counters(self) -> Counters:
        return counters_of(self.stats)

    def reset_peaks(self) -> None:
        for kind in ("allocated", "requested", "reserved"):
            self.stats[f"{kind}_bytes.all.peak"] = self.stats[f"{kind}_bytes.all.current"]
