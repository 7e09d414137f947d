"""A history as text for a terminal or a pipe. Pure: a value in, a string out; the answer is the last line."""

from collections.abc import Iterator, Sequence

from vramplan.check.items import printable
from vramplan.history import History, Move, Point, Series
from vramplan.report.check_words import moved
from vramplan.report.comparison import difference, percent
from vramplan.report.layout import Page, table, table_unit
from vramplan.report.report_words import counted
from vramplan.units import human

_BLOCKS = "▁▂▃▄▅▆▇█"
_LEVEL = "▄"  # all the same
_FAILED = "\N{MULTIPLICATION SIGN}"


def render_history(history: History, page: Page) -> str:
    """Each series with its sparkline and its moves; how many moved at the end."""
    parts = ["\n".join(_series(series, page)) for series in history.series]
    skipped = [line for text in history.skipped for line in page.wrap(f"skipped: {printable(text)}", indent="  ")]
    if skipped:
        parts.append("\n".join(skipped))
    return "\n\n".join([*parts, answer(history)])


def answer(history: History) -> str:
    """How many scenarios moved, in one line."""
    count = sum(bool(series.moves) for series in history.series)
    total = counted(len(history.series), "scenario")
    if not count and not any(len(series.points) > 1 for series in history.series):
        return f"nothing to compare yet: {total} with one result each"
    return f"{count} of {total} moved" if count else f"nothing moved in {total}"


def sparkline(values: Sequence[int | None]) -> str:
    """One block per value, from the smallest to the largest; a cross for a run without one."""
    known = [value for value in values if value is not None]
    low, height = min(known, default=0), max(known, default=0) - min(known, default=0)
    return "".join(_FAILED if value is None else _block(value - low, height) for value in values)


def _block(height: int, span: int) -> str:
    return _BLOCKS[height * (len(_BLOCKS) - 1) // span] if span else _LEVEL


def _series(series: Series, page: Page) -> Iterator[str]:
    points = series.points
    count = counted(len(points), "result")
    when = span(points)
    yield from page.wrap(f"{page.bold(str(series.key))}: {count}{', ' + when if when else ''}", indent="  ")
    if series.peaks:
        low, high = min(series.peaks), max(series.peaks)
        highest = f" to {human(high)}" if high != low else ""
        line = sparkline([point.peak for point in points])
        yield from page.indented(f"peak {line} {human(low)}{highest}", "  ", hanging="  ")
    if series.moves:
        yield from _moves(series, page)
        yield from _first(series, page)


def span(points: Sequence[Point]) -> str:
    """The first and the last date; one of them when they are the same, nothing without any."""
    dates = [f"{point.date:%Y-%m-%d}" for point in points if point.date]
    return f"{dates[0]} to {dates[-1]}" if dates and dates[0] != dates[-1] else "".join(dates[:1])


def _moves(series: Series, page: Page) -> Iterator[str]:
    """A row for the first point and for each one that moved."""
    shown = [series.points[0], *series.moves]
    unit, factor = table_unit(max(point.peak or 0 for point in shown))
    rows = [["  date", f"peak {unit}", "difference", "relative", "moved most", "changed"]]
    for point in shown:
        size = "-" if point.peak is None else f"{point.peak / factor:.2f}"
        rows.append([f"  {date_text(point)}", size, *_cells(point.move)])
    for columns in (6, 5, 4):  # what does not fit is left out from the right; the first move is told in full below
        lines = table([row[:columns] for row in rows], left=(0, 4, 5))
        if page.fits(lines):
            break
    yield from lines


def _cells(move: Move | None) -> list[str]:
    if move is None:
        return ["", "", "", ""]
    sizes = [difference(move.peak), percent(move.peak.relative)] if move.peak else ["", ""]
    return [*sizes, moved(move.most) if move.most else move.outcome, changed(move)]


def changed(move: Move) -> str:
    """The fields, versions and keys that changed right before the move; empty when none did."""
    return printable(", ".join(map(str, (*move.fields, *move.changes))))


def date_text(point: Point) -> str:
    """When the result was measured, to the minute."""
    return f"{point.date:%Y-%m-%d %H:%M}" if point.date else "undated"


def _first(series: Series, page: Page) -> Iterator[str]:
    """Where it began, what moved, and what changed there."""
    point = series.first_moved
    if point is None or point.move is None:
        return
    move = point.move
    told = [moved(move.most)] if move.most else []
    told += [f"outcome {move.outcome}"] if move.outcome else []
    if move.fields:
        told.append(f"another scenario: {', '.join(map(str, move.fields))}")
    told.append(", ".join(map(str, move.changes)) or ("" if move.fields else "no version changed"))
    facts = "; ".join(printable(fact) for fact in told if fact)
    yield from page.indented(f"first moved in {printable(point.item.source)}: {facts}", "  ", hanging="  ")
