"""Aligned plain text: columns, bars, wrapping. What every renderer for the terminal stands on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from vramplan.units import GIB, MIB

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: Spaces at which a line may break: not between a number and its unit.
_BREAK = re.compile(r" (?!(?:B|[KMGT]iB|[kMT])\b)")
_EIGHTHS = " ▏▎▍▌▋▊▉"
GAP = "  "
SMALLEST_BAR = 6
_BAR_CELLS = 24  # in a pipe, where no width asks for less
_NOTE = "     "


@dataclass(frozen=True, slots=True)
class Page:
    """Where a text will stand: how many columns it may fill (0: as many as it likes, a pipe) and whether in colour."""

    width: int = 0
    color: bool = False

    def bold(self, text: str) -> str:
        """`text` emphasised: the peak."""
        return self._paint("1", text)

    def red(self, text: str) -> str:
        """`text` as over the limit."""
        return self._paint("31", text)

    def green(self, text: str) -> str:
        """`text` as inside the limit."""
        return self._paint("32", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color and text else text

    def fits(self, lines: Sequence[str]) -> bool:
        """Whether no line is wider than the page."""
        return not self.width or all(visible(line) <= self.width for line in lines)

    def wrap(self, text: str, *, indent: str = "") -> list[str]:
        """`text` on as many lines as the page needs, those after the first one indented; one line in a pipe."""
        if not self.width or visible(text) <= self.width:
            return [text]
        lines, line = [], ""
        for word in _BREAK.split(text):
            if line and visible(line) + 1 + visible(word) > self.width:
                lines.append(line)
                line = indent + word
            else:
                line = f"{line} {word}" if line else word
        return [*lines, line]

    def indented(self, text: str, indent: str, *, hanging: str = "") -> list[str]:
        """`text` with `indent` before every line, and `hanging` too before those after the first one."""
        inner = Page(max(self.width - len(indent), 1), self.color) if self.width else self
        return [indent + line for line in inner.wrap(text, indent=hanging)]


def visible(text: str) -> int:
    """Columns that `text` takes on a terminal, colour codes not counted."""
    return len(_ANSI.sub("", text))


def bar(share: float, cells: int) -> str:
    """`share` (0 to 1) of a bar `cells` wide, in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def bar_room(lines: Sequence[str], page: Page) -> int:
    """How many cells a bar has beside a table of these lines; less than `SMALLEST_BAR` is no room for one."""
    if not page.width:
        return _BAR_CELLS
    return min(page.width - max(map(visible, lines)) - len(GAP), 2 * _BAR_CELLS)


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> list[str]:
    """One line per row, columns as wide as their widest cell; columns whose index is in `left` aligned to the left."""
    widths = [max(map(visible, column)) for column in zip_longest(*rows, fillvalue="")]
    return [
        GAP.join(_pad(cell, widths[i], i in left) for i, cell in enumerate(row)).rstrip() if row else "" for row in rows
    ]


def fitting_table(
    rows: Sequence[Sequence[str]], page: Page, *, left: Sequence[str], less_important: Sequence[str]
) -> list[str]:
    """A table whose columns, named in the first row, are left out one after the other until the page is wide enough.

    `left` names the columns that are aligned to the left, `less_important` those that may go, the first one first.
    """
    kept = list(range(len(rows[0])))
    for name in (*less_important, ""):
        lines = table(
            [[row[i] for i in kept] for row in rows], left=[k for k, i in enumerate(kept) if rows[0][i] in left]
        )
        if page.fits(lines):
            break
        kept = [i for i in kept if rows[0][i] != name]
    return lines


def noted_table(rows: Sequence[Sequence[str]], page: Page, *, left: Sequence[int]) -> list[str]:
    """A table whose last column, where the page is too narrow for it, stands below each row on lines of its own."""
    lines = table(rows, left=left)
    if page.fits(lines):
        return lines
    first, *others = table([row[:-1] for row in rows], left=left)
    noted = [first]
    for line, row in zip(others, rows[1:], strict=True):
        noted += [line, *(page.indented(row[-1], _NOTE) if row[-1] else [])]
    return noted


def table_unit(largest: int) -> tuple[str, int]:
    """The one unit of a table's columns, and its bytes: GiB, or MiB when the largest number is below 1 GiB."""
    return ("GiB", GIB) if largest >= GIB else ("MiB", MIB)


def amount(size: int, factor: int) -> str:
    """A cell of a table whose unit is `factor` bytes: two decimals, `-` for nothing at all."""
    return f"{size / factor:.2f}" if size else "-"


def _pad(cell: str, width: int, to_left: bool) -> str:
    space = " " * (width - visible(cell))
    return cell + space if to_left else space + cell
