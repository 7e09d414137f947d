"""A report as text for a terminal or a pipe. Pure: a value in, a string out; the answer is the last line."""

from collections.abc import Callable, Iterator

from vramplan.check.items import printable
from vramplan.error_table import Summary
from vramplan.report.comparison import EQUAL, percent
from vramplan.report.layout import Page, amount, fitting_table, table, table_unit
from vramplan.report.report_case import Case, Miss
from vramplan.report.report_facts import Report
from vramplan.report.report_studies import studies
from vramplan.report.report_study import Study
from vramplan.report.report_words import counted, error_cells, error_words
from vramplan.units import human


def render_report(report: Report, page: Page) -> str:
    """One line per result, errors by group, the studies; the closed form's error at the end."""
    lines = [*_results(report, page)]
    if report.misses:
        lines += ["", *_groups(report, page)]
    for study in studies(report):
        lines += ["", *_study(study, page)]
    lines += [""] if report.skipped and lines[-1] else []
    lines += [line for text in report.skipped for line in page.wrap(f"skipped: {printable(text)}", indent="  ")]
    return "\n".join([*lines, "", *page.wrap(answer(report), indent="  ")])


def answer(report: Report) -> str:
    """How many results there are, and how far the closed form is from the records, in one line."""
    failed = sum(case.comparison is None for case in report.records)
    counts = [counted(len(report.records), "record")]
    counts += [f"{failed} not compared"] if failed else []
    predictions = len(report.cases) - len(report.records)
    counts += [counted(predictions, "prediction")] if predictions else []
    if not report.closed_form:
        return ", ".join(counts)
    errors = Summary.of(miss.error for miss in report.closed_form)
    return f"{', '.join(counts)}: peak predicted with {error_words(errors)}"


def misses_by_case(report: Report) -> dict[int, Miss]:
    """The closed form's miss of each result that has one, by the result's number."""
    return {miss.case.number: miss for miss in report.closed_form}


def size_column(report: Report) -> tuple[str, Callable[[int], str]]:
    """The unit of the columns of peaks, with a space before it, and what writes a cell.

    Where a laptop's runs stand beside a card's, no unit fits all: then each cell has its own.
    """
    peaks = [case.peak for case in report.cases if case.peak]
    unit, factor = table_unit(max(peaks, default=0))
    if peaks and min(peaks) < factor / 10:
        return "", lambda size: human(size) if size else "-"
    return f" {unit}", lambda size: amount(size, factor)


def sizes_of(case: Case, written: Callable[[int], str]) -> list[str]:
    """The cells `measured` and `predicted` of a result."""
    predicted = case.comparison.a.ledger.peak if case.comparison else 0 if case.measured else case.peak
    return [written(case.peak if case.measured else 0), written(predicted)]


def _results(report: Report, page: Page) -> list[str]:
    unit, written = size_column(report)
    misses = misses_by_case(report)
    rows = [["scenario", "device", "outcome", "peaks in", f"measured{unit}", "predicted", "error", "static"]]
    rows += [[*_names(case), *sizes_of(case, written), *_errors(misses.get(case.number))] for case in report.cases]
    left = ("scenario", "device", "outcome", "peaks in")
    return fitting_table(rows, page, left=left, less_important=("static", "peaks in", "device", "outcome"))


def _names(case: Case) -> list[str]:
    phase = case.result.ledger.peak_phase.value if case.peak else ""
    return [printable(case.result.scenario.name), case.result.device, case.outcome, phase]


def _errors(miss: Miss | None) -> list[str]:
    if miss is None:
        return ["", ""]
    return [percent(miss.error), EQUAL if miss.static_equal else "differs"]


def _groups(report: Report, page: Page) -> Iterator[str]:
    rows = [["error of the peak by", "", "records", "mean", "median", "worst"]]
    last = ""
    for group in report.groups:
        by, last = ("" if group.by == last else group.by), group.by
        rows.append([by, printable(group.name), str(len(group.errors)), *error_cells(group.summary)])
    lines = table(rows, left=(0, 1))
    yield from lines if page.fits(lines) else table([[*row[:2], *row[3:]] for row in rows], left=(0, 1))


def _study(study: Study, page: Page) -> Iterator[str]:
    """The table, its least important columns left out where the page is narrow, and what follows from it."""
    heads = [column.head for column in study.columns]
    rows = [[printable(k.text(cell)) for k, cell in zip(study.columns, row, strict=True)] for row in study.rows]
    unimportant = sorted(study.columns[1:], key=lambda column: column.important)
    yield from fitting_table(
        [heads, *rows],
        page,
        left=[column.head for column in study.columns if not column.number],
        less_important=[column.head for column in unimportant],
    )
    for sentence in study.findings:
        yield from page.wrap(printable(sentence), indent="  ")
