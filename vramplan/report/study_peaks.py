"""Where the peaks of training runs are, by vocabulary and sequence, as a table."""

from collections.abc import Iterator

from vramplan.ledger import Component
from vramplan.report.report_facts import Report
from vramplan.report.report_peaks import PeakGroup, counted_names
from vramplan.report.report_study import Cell, Column, Study


def peaks_study(report: Report) -> Iterator[Study]:
    """The study, where a run has trained."""
    if report.peaks:
        yield Study(
            name="peaks",
            heading="Where the peak is",
            note="Training runs by vocabulary and sequence: in which phase they peak, what is largest there, and "
            "between what shares of the peak logits and activations are.",
            columns=(
                Column("vocabulary", "", number=False, important=9),
                Column("sequence", "sequence", important=9),
                Column("batch", "batch", important=1),
                Column("runs", "runs", important=2),
                Column("peak in", "peak in", number=False, important=8),
                Column("largest there", "largest", number=False, important=7),
                Column("logits", "logits", important=6),
                Column("activations", "activations", important=5),
            ),
            rows=tuple(map(_peak_row, report.peaks)),
        )


def _peak_row(group: PeakGroup) -> tuple[Cell, ...]:
    return (
        Cell(f"{group.vocab:,}"),
        Cell(f"{group.seq:,}"),
        Cell(_span(f"{group.batches[0]:,}", f"{group.batches[-1]:,}")),
        Cell(str(len(group.cases))),
        Cell(counted_names(group.phases)),
        Cell(counted_names(group.largest)),
        *(Cell(_span(*_shares(group, part))) for part in (Component.LOGITS, Component.ACTIVATIONS)),
    )


def _shares(group: PeakGroup, part: Component) -> tuple[str, str]:
    low, high = group.share(part)
    return f"{low:.0%}", f"{high:.0%}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
