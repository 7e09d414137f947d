"""Another trainer's file as text: what was read, assumed and ignored. Pure; the warnings are the prediction's."""

from collections.abc import Sequence

from vramplan.importers.imported import Imported, Row
from vramplan.report.layout import GAP, Page, table


def render_import(origin: Imported, page: Page, *, warnings: bool = False) -> str:
    """The table of an import; with `warnings`, also what the scenario cannot say, where no prediction follows."""
    lines = page.wrap(f"{page.bold(origin.where)}: read as {origin.format} ({origin.library})", indent=GAP)
    if origin.read:
        lines += ["", *_columns(["read", "", "scenario", ""], origin.read, page)]
    if origin.assumed:
        lines += ["", *_columns(["assumed", "", "because", ""], origin.assumed, page)]
    if origin.ignored:
        lines += ["", *page.wrap(f"ignored: {', '.join(_pair(row) for row in origin.ignored)}", indent=GAP)]
    if warnings:
        lines += [line for text in origin.warnings for line in page.wrap(f"warning: {text}", indent=GAP)]
    return "\n".join(lines)


def _columns(head: Sequence[str], rows: Sequence[Row], page: Page) -> list[str]:
    """One line per row where the page is wide enough, else two or more."""
    cells = [_cells(row) for row in rows]
    lines = table([head, *cells], left=(0, 1, 2, 3))
    if page.fits(lines):
        return lines
    narrow = [page.bold(head[0])]
    for first, equals, second, note in cells:
        text = " ".join(filter(None, (first, equals, second, f"({note})" if note else "")))
        narrow += page.wrap(f"{GAP}{text}", indent=GAP * 2)
    return narrow


def _cells(row: Row) -> list[str]:
    """`key: value -> ours: value  note`, or `ours: value  <- why` for what the file does not say."""
    ours = f"{row.ours}: {row.becomes}"
    return [f"{row.key}: {row.value}", "->", ours, row.note] if row.key else [ours, "", row.note, ""]


def _pair(row: Row) -> str:
    return f"{row.key} ({row.note})" if row.note and row.note != "changes no memory of a step" else row.key
