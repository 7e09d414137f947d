"""Comparisons and tables of errors as GitHub-flavoured Markdown. Pure: a value in, a string out."""

from collections.abc import Sequence

from vramplan.compare import Comparison, Pair
from vramplan.error_table import ErrorTable, Summary
from vramplan.report.comparison import EQUAL, difference, peak_sentence, percent, sides
from vramplan.report.layout import amount, table_unit


def comparison_markdown(comparison: Comparison) -> str:
    """One table of every phase and component, then the peaks and the notes."""
    unit, factor = table_unit(max(comparison.peak.reference, comparison.peak.other))
    a, b = sides(comparison)
    rows = [["phase", "component", f"{a} {unit}", f"{b} {unit}", "difference", "relative"]]
    for total in comparison.totals:
        phase = total.phase.value
        held = (row for row in comparison.rows if row.phase is total.phase)
        rows += [[phase, row.component.value, *_cells(comparison, row.pair, factor)] for row in held]
        rows.append([phase, "**allocated**", *_cells(comparison, total.allocated, factor)])
        if total.reserved:
            rows.append([phase, "**reserved**", *_cells(comparison, total.reserved, factor)])
    rows.append(["between steps", "**allocated**", *_cells(comparison, comparison.steady, factor)])
    notes = [f"- {note}" for note in comparison.notes]
    return "\n".join([*_table(rows, left=2), "", peak_sentence(comparison), *(["", *notes] if notes else [])])


def errors_markdown(errors: ErrorTable) -> str:
    """One row per record, then mean, median and worst."""
    unit, factor = table_unit(max(row.measured for row in errors.rows))
    rows = [["record", "device", f"predicted {unit}", f"measured {unit}", "error", "worst phase", "static", "reserved"]]
    for row in errors.rows:
        sizes = [f"{size / factor:.2f}" for size in (row.predicted, row.measured)]
        static = EQUAL if row.static_equal else "differs"
        reserved = percent(row.reserved.relative) if row.reserved else ""
        rows.append([row.name, row.device, *sizes, percent(row.error), f"{row.worst_phase:.2%}", static, reserved])
    for name in ("mean", "median", "worst"):
        reserved = _of(errors.reserved, name)
        rows.append([f"**{name}**", "", "", "", _of(errors.allocated, name), "", "", reserved])
    return "\n".join(_table(rows, left=2))


def _of(summary: Summary | None, name: str) -> str:
    return "" if summary is None else f"**{getattr(summary, name):.2%}**"


def _cells(comparison: Comparison, pair: Pair, factor: int) -> list[str]:
    both = [amount(comparison.side(pair, letter), factor) for letter in "ab"]
    return [*both, difference(pair), percent(pair.relative)]


def _table(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """The first row is the head; the first `left` columns are aligned to the left."""
    rule = [":--" if i < left else "--:" for i in range(len(rows[0]))]
    lines = [rows[0], rule, *rows[1:]]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
