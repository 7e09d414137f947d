"""An explained prediction as text: under each component the tensors it consists of, with their arithmetic."""

from collections.abc import Sequence

from vramplan.explain import Explanation, Line
from vramplan.report.layout import GAP, Page, table
from vramplan.units import human

_INDENT = "  "


def render_explanation(explanations: Sequence[Explanation], page: Page) -> str:
    """One block of lines per component; nothing is left out, long names go on lines of their own."""
    blocks = ["\n".join(_block(explanation, page)) for explanation in explanations]
    return "\n\n".join(blocks)


def _block(explanation: Explanation, page: Page) -> list[str]:
    title = f"{explanation.component} = {explanation.bytes:,} B ({human(explanation.bytes)})"
    head = f"{page.bold(title)} at the peak ({explanation.phase}), {explanation.basis}"
    notes = [line for note in explanation.notes for line in page.indented(note, _INDENT)]
    return [*page.wrap(head, indent=_INDENT), *notes, *_lines(explanation.lines, page)]


def _lines(lines: Sequence[Line], page: Page) -> list[str]:
    """A table of arithmetic, bytes and names; arithmetic below the name where the page is too narrow for it."""
    rows = [(f"{line.count} x" if line.count > 1 else "", _product(line), f"= {line.bytes:,} B") for line in lines]
    whole = [f"{_INDENT}{row}{GAP}{_words(line)}" for row, line in zip(table(rows, left=(1,)), lines, strict=True)]
    if page.fits(whole):
        return whole
    stacked = []
    for row, line in zip(rows, lines, strict=True):
        stacked += page.indented(_words(line), _INDENT)
        stacked += page.indented(" ".join(filter(None, row)), 2 * _INDENT)
    return stacked


def _product(line: Line) -> str:
    """The arithmetic of one tensor; its bare size where there is no arithmetic, nothing when that is all there is."""
    if line.formula or line.count == 1:
        return line.formula
    return f"{line.each}"


def _words(line: Line) -> str:
    return f"{line.what} ({line.note})" if line.note else line.what
