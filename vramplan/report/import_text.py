"""Another trainer's file as text: what was read, assumed and ignored. Pure; the warnings are the prediction's."""

from collections.abc import Sequence
from itertools import zip_longest

from vramplan.importers.imported import HARMLESS, Imported, Row
from vramplan.report.layout import GAP, Page, table, visible

#: Columns below which a note is no longer wrapped beside its row.
_NARROWEST = 32


def render_import(origin: Imported, page: Page, *, warnings: bool = False) -> str:
    """The table of an import; with `warnings`, also what the scenario cannot say, where no prediction follows."""
    lines = page.wrap(f"{page.bold(origin.where)}: read as {origin.format} ({origin.library})", indent=GAP)
    if origin.read:
        lines += ["", *_columns(["read", "->", "scenario", ""], origin.read, page)]
    if origin.assumed:
        lines += ["", *_columns(["assumed", "", "because", ""], origin.assumed, page)]
    if origin.ignored:
        lines += ["", *page.wrap(f"ignored: {', '.join(_pair(row) for row in origin.ignored)}", indent=GAP)]
    if warnings:
        lines += [line for text in origin.warnings for line in page.wrap(f"warning: {text}", indent=GAP)]
    return "\n".join(lines)


def _columns(head: Sequence[str], rows: Sequence[Row], page: Page) -> list[str]:
    """One line per row; on a narrow page the notes are wrapped beside what they are about, or behind it."""
    cells = [list(head), *map(_cells, rows)]
    lines = table(cells, left=(0, 1, 2, 3))
    if page.fits(lines):
        return lines
    notes = 3 if rows[0].key else 2
    facts = table([row[:notes] for row in cells], left=(0, 1, 2))
    column = max(map(visible, facts)) + len(GAP)
    if page.width - column < _NARROWEST:
        texts = (" ".join(filter(None, (*row[:notes], f"({row[notes]})" if row[notes] else ""))) for row in cells)
        return [line for text in texts for line in page.wrap(text, indent=GAP * 2)]
    beside = []
    for fact, row in zip(facts, cells, strict=True):
        note = Page(page.width - column).wrap(row[notes])
        beside += [f"{part:<{column}}{line}".rstrip() for part, line in zip_longest([fact], note, fillvalue="")]
    return beside


def _cells(row: Row) -> list[str]:
    """`key: value -> ours: value  note`, or `ours: value  <- why` for what the file does not say."""
    ours = f"{row.ours}: {row.becomes}"
    return [f"{row.key}: {row.value}", "->", ours, row.note] if row.key else [ours, "", row.note, ""]


def _pair(row: Row) -> str:
    """An ignored key, and why it does not matter where that is not the reason of most."""
    return f"{row.key} ({row.note})" if row.note and row.note != HARMLESS else row.key
