"""What a report's studies are made of: tables of cells, which text, Markdown and HTML each draw in their own way."""

from dataclasses import dataclass

from vramplan.compare import Pair
from vramplan.report.comparison import percent
from vramplan.report.layout import amount
from vramplan.report.report_case import Case
from vramplan.report.report_pairs import Times
from vramplan.units import human

ARROW = " → "


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell: words, or amounts of memory with an arrow between them."""

    text: str = ""
    sizes: tuple[int, ...] = ()
    """Bytes; shown instead of the words."""
    case: Case | None = None
    """The result that the cell names."""
    small: str = ""
    """Said less loudly beside it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a study."""

    head: str
    short: str = ""
    """Its name where there is little room; empty for the first, whose cells name the row."""
    number: bool = True
    important: int = 0
    """Columns with the lowest figure go first where the page is narrow."""
    factor: int = 0
    """Bytes of the unit that its amounts share and its head names; 0 where each has its own."""

    def written(self, size: int) -> str:
        """An amount of this column."""
        return amount(size, self.factor) if self.factor else human(size)

    def text(self, cell: Cell) -> str:
        """A cell of this column on one line, without what is said less loudly."""
        return ARROW.join(map(self.written, cell.sizes)) if cell.sizes else cell.text


@dataclass(frozen=True)
class Study:
    """One table with its heading, what it shows, and what follows from it."""

    name: str
    heading: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    findings: tuple[str, ...] = ()


def named(case: Case, small: str = "") -> Cell:
    """The cell that names a row's result."""
    return Cell(case.name, case=case, small=small)


def saved(pair: Pair) -> Cell:
    """By how much the second is less, in bytes and as a share of the first."""
    return Cell(sizes=(-pair.difference,), small=f"{-pair.relative:.1%}" if pair.relative else "")


def time_cells(times: Times | None) -> tuple[Cell, Cell]:
    """Medians with their spreads, and by how much the second is slower."""
    if times is None:
        return Cell(), Cell()
    sides = (times.reference, times.other)
    text = ARROW.join(f"{side.median:,.1f}" for side in sides)
    spread = ARROW.join(f"{side.fastest:,.1f}-{side.slowest:,.1f}" for side in sides)
    sure = "beyond the spread" if times.beyond_spread else "within the spread"
    return Cell(text, small=spread), Cell(percent(times.slower), small=sure)
