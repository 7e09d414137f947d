"""Comparisons and tables of errors as text for a terminal or a pipe. Pure: a value in, a string out."""

from collections.abc import Iterator

from vramplan.compare import Comparison, Pair, Total, label
from vramplan.error_table import ErrorTable
from vramplan.ledger import Component
from vramplan.record import Record
from vramplan.report.layout import Page, amount, fitting_table, table, table_unit
from vramplan.report.report_words import counted, error_words
from vramplan.units import human

EQUAL = "="


def render_comparison(comparison: Comparison, page: Page) -> str:
    """Every component of every phase on both sides, with `=` where equal to the byte; the peaks are the last line."""
    unit, factor = table_unit(max(comparison.peak.reference, comparison.peak.other))
    names = sides(comparison)
    rows = [[unit, *names, "difference", "relative"]]
    for total in comparison.totals:
        rows += [[], [page.bold(total.phase.value)], *_phase_rows(comparison, total, factor, page)]
    rows += [[], ["between steps", *cells(comparison, comparison.steady, factor, page)]]
    notes = [line for note in comparison.notes for line in page.wrap(f"note: {note}", indent="  ")]
    lines = [*_heading(comparison, page), "", *table(rows), *(["", *notes] if notes else [])]
    return "\n".join([*lines, "", *page.wrap(peak_sentence(comparison), indent="  ")])


def render_errors(errors: ErrorTable, page: Page) -> str:
    """One line per record, predicted against measured; mean, median and worst error at the end."""
    unit, factor = table_unit(max(row.peak.reference for row in errors.rows))
    reserves = errors.reserved is not None
    head = ["record", "device", f"predicted {unit}", "measured", "error", "worst phase", "static"]
    rows = [head + (["reserved"] if reserves else [])]
    for row in errors.rows:
        sizes = [f"{size / factor:.2f}" for size in (row.peak.other, row.peak.reference)]
        static = EQUAL if row.static_equal else "differs"
        cells = [row.name, row.device, *sizes, percent(row.error), f"{row.worst_phase:.2%}", static]
        rows.append(cells + ([percent(row.reserved.relative) if row.reserved else ""] if reserves else []))
    skipped = [line for text in errors.skipped for line in page.wrap(f"skipped: {text}", indent="  ")]
    shown = fitting_table(
        rows,
        page,
        left=("record", "device"),
        less_important=("worst phase", "device", "static", rows[0][2], "measured"),
    )
    lines = [*shown, *(["", *skipped] if skipped else []), ""]
    if errors.reserved is not None:
        lines += page.wrap(f"reserved:  {error_words(errors.reserved)}", indent="  ")
    count = counted(len(errors.rows), "record")
    lines += page.wrap(f"allocated: {error_words(errors.allocated)} over {count}", indent="  ")
    return "\n".join(lines)


def sides(comparison: Comparison) -> tuple[str, str]:
    """Column names of a and b: `predicted`, `measured`; with the engine where both are of one kind."""
    a, b = label(comparison.a), label(comparison.b)
    if a == b:
        return "a", "b"
    return (a.how, b.how) if a.how != b.how else (a.by, b.by)


def peak_sentence(comparison: Comparison) -> str:
    """Which phase peaked on each side, and by how much the peaks differ."""
    (name_a, name_b), parts = sides(comparison), []
    for name, letter, result in ((name_a, "a", comparison.a), (name_b, "b", comparison.b)):
        parts.append(f"{name} {human(comparison.side(comparison.peak, letter))} in {result.ledger.peak_phase.value}")
    end = "equal to the byte" if comparison.peak.difference == 0 else percent(comparison.peak.relative)
    return f"peak: {parts[0]}, {parts[1]}: {end}"


def percent(relative: float | None) -> str:
    """A signed percentage with two decimals; `new` where there is nothing to relate to, `=` where nothing differs."""
    if relative is None:
        return "new"
    if abs(relative) >= 10:  # nobody reads the hundredths of +107142.86%
        return f"{relative:+,.0%}"
    return EQUAL if relative == 0 else f"{relative:+.2%}"


def difference(pair: Pair) -> str:
    """The signed difference in the unit that suits it, or `=`."""
    return EQUAL if pair.difference == 0 else f"{'+' if pair.difference > 0 else ''}{human(pair.difference)}"


def _heading(comparison: Comparison, page: Page) -> Iterator[str]:
    for name, result in zip(sides(comparison), (comparison.a, comparison.b), strict=True):
        how = "measured" if isinstance(result, Record) else f"{result.engine} engine"
        yield from page.wrap(f"{name}: {result.scenario.name}, {how}, memory of {result.device}", indent="  ")
    a, b = sides(comparison)
    reference, other = (a, b) if comparison.reference == "a" else (b, a)
    yield f"difference: {other} less {reference}"


def _phase_rows(comparison: Comparison, total: Total, factor: int, page: Page) -> Iterator[list[str]]:
    """The components, what they add up to, and what stands outside the allocator."""
    held = [row for row in comparison.rows if row.phase is total.phase]
    context = [row for row in held if row.component is Component.CONTEXT]
    for row in (row for row in held if row not in context):
        yield [f"  {row.component.value}", *cells(comparison, row.pair, factor, Page())]
    yield ["  allocated", *cells(comparison, total.allocated, factor, page)]
    if total.reserved:
        yield ["  reserved", *cells(comparison, total.reserved, factor, page)]
    for row in context:
        yield [f"  {row.component.value}", *cells(comparison, row.pair, factor, Page())]


def cells(comparison: Comparison, pair: Pair, factor: int, page: Page) -> list[str]:
    """A pair on both sides, bold where the page has colours, and by how much the sides differ."""
    both = [page.bold(amount(comparison.side(pair, letter), factor)) for letter in "ab"]
    return [*both, difference(pair), percent(pair.relative)]
