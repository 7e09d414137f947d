"""Comparisons and tables of errors as GitHub-flavoured Markdown. Pure: a value in, a string out."""

from vramplan.compare import Comparison
from vramplan.error_table import ErrorTable
from vramplan.report.comparison import EQUAL, cells, peak_sentence, percent, sides
from vramplan.report.layout import Page, table_unit
from vramplan.report.markdown_table import escape, markdown_table
from vramplan.report.report_words import error_cells


def comparison_markdown(comparison: Comparison) -> str:
    """One table of every phase and component, then the peaks and the notes."""
    unit, factor = table_unit(max(comparison.peak.reference, comparison.peak.other))
    a, b = sides(comparison)
    head = ["phase", "component", f"{escape(a)} {unit}", f"{escape(b)} {unit}", "difference", "relative"]
    rows = []
    for total in comparison.totals:
        phase = total.phase.value
        held = (row for row in comparison.rows if row.phase is total.phase)
        rows += [[phase, row.component.value, *cells(comparison, row.pair, factor, Page())] for row in held]
        rows.append([phase, "**allocated**", *cells(comparison, total.allocated, factor, Page())])
        if total.reserved:
            rows.append([phase, "**reserved**", *cells(comparison, total.reserved, factor, Page())])
    rows.append(["between steps", "**allocated**", *cells(comparison, comparison.steady, factor, Page())])
    notes = [f"- {note}" for note in comparison.notes]
    lines = [*markdown_table(head, rows, left=range(2)), "", peak_sentence(comparison)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def errors_markdown(errors: ErrorTable) -> str:
    """One row per record, then mean, median and worst."""
    unit, factor = table_unit(max(row.peak.reference for row in errors.rows))
    head = ["record", "device", f"predicted {unit}", f"measured {unit}", "error", "worst phase", "static", "reserved"]
    rows: list[list[str]] = []
    for row in errors.rows:
        sizes = [f"{size / factor:.2f}" for size in (row.peak.other, row.peak.reference)]
        static = EQUAL if row.static_equal else "differs"
        reserved = percent(row.reserved.relative) if row.reserved else ""
        rows.append(
            [escape(row.name), row.device, *sizes, percent(row.error), f"{row.worst_phase:.2%}", static, reserved]
        )
    summaries = (error_cells(found) if found else [""] * 3 for found in (errors.allocated, errors.reserved))
    for line in zip(("mean", "median", "worst"), *summaries, strict=True):
        name, allocated, reserved = (f"**{cell}**" if cell else "" for cell in line)
        rows.append([name, "", "", "", allocated, "", "", reserved])
    return "\n".join(markdown_table(head, rows, left=range(2)))
