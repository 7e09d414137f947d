"""A check as text for a terminal or a pipe. Pure: a value in, a string out; the verdict is the last line."""

from collections.abc import Iterator

from vramplan.check.findings import Case, Check, Status
from vramplan.check.update import Update
from vramplan.compare import Pair
from vramplan.report.check_words import answer, details, update_lines
from vramplan.report.comparison import difference, percent
from vramplan.report.layout import Page, amount, table, table_unit


def render_check(check: Check, page: Page) -> str:
    """A row per case with its peaks, then why each one is not equal, then the answer."""
    lines = table(list(_rows(check, page)), left=(0, 1))
    told = [line for case in check.cases for line in _told(case, check, page)]
    notes = [line for note in check.notes for line in page.wrap(f"note: {note}", indent="  ")]
    limits = page.wrap(f"limits: {', '.join(map(str, check.limits))}", indent="  ")
    paint = page.green if check.passed else page.red
    word, colon, rest = answer(check).partition(":")
    last = page.wrap(f"{paint(word)}{colon}{rest}", indent="  ")
    return "\n".join([*limits, "", *lines, *(["", *told] if told else []), *(["", *notes] if notes else []), "", *last])


def render_update(update: Update, page: Page) -> str:
    """What the rewrite did."""
    return "\n".join(line for text in update_lines(update) for line in page.wrap(text, indent="  "))


def _rows(check: Check, page: Page) -> Iterator[list[str]]:
    unit, factor = peaks_unit(check)
    yield ["scenario", "status", f"baseline {unit}", "new", "difference", "relative"]
    for case in check.cases:
        yield [str(case.key), _status(case, check, page), *peak_cells(case, factor)]


def peaks_unit(check: Check) -> tuple[str, int]:
    """The unit of the columns of peaks, and its bytes."""
    return table_unit(max(max(pair.reference, pair.other) for pair in map(_peak, check.cases)))


def peak_cells(case: Case, factor: int) -> list[str]:
    """The peaks of baseline and new result, and by how much they differ where they are compared."""
    pair = _peak(case)
    moved = [difference(pair), percent(pair.relative)] if case.comparison else ["", ""]
    return [amount(pair.reference, factor), amount(pair.other, factor), *moved]


def _peak(case: Case) -> Pair:
    """The peaks of baseline and new result; 0 where there is no result or no memory."""
    sides = [side.result.ledger if side else None for side in (case.baseline, case.new)]
    return Pair(*(side.peak if side and side.entries else 0 for side in sides))


def _status(case: Case, check: Check, page: Page) -> str:
    if case in check.failed or case.status is Status.INCOMPARABLE:
        return page.red(case.status.value)
    return page.green(case.status.value) if case.status is Status.IMPROVED else case.status.value


def _told(case: Case, check: Check, page: Page) -> Iterator[str]:
    """The case and its reasons; nothing for one that is equal and was made by the same versions."""
    told = list(details(case))
    if told:
        yield f"{_status(case, check, page)}: {case.key}"
        yield from (line for text in told for line in page.indented(text, "  ", hanging="  "))
