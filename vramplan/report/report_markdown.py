"""A report as GitHub-flavoured Markdown, for pull requests and step summaries. Pure: a value in, a string out."""

from collections.abc import Callable, Iterator

from vramplan.report.comparison import EQUAL, percent
from vramplan.report.markdown_table import escape, markdown_table
from vramplan.report.report_case import Case, Miss
from vramplan.report.report_facts import Report
from vramplan.report.report_studies import studies
from vramplan.report.report_study import Cell, Column, Study
from vramplan.report.report_text import answer, misses_by_case, size_column, sizes_of
from vramplan.report.report_words import counted, error_cells

_OPEN_ROWS = 20  # more results than that are folded away, the errors by group staying in sight


def report_markdown(report: Report) -> str:
    """The answer, errors by group, one row per result, the studies, and what was skipped."""
    lines = [f"**{answer(report)}**", ""]
    if report.misses:
        lines += [*_groups(report), ""]
    results = list(_results(report))
    if len(report.cases) > _OPEN_ROWS:
        summary = f"<details><summary>{counted(len(report.cases), 'result')}</summary>"
        results = [summary, "", *results, "", "</details>"]
    lines += results
    for study in studies(report):
        lines += ["", *_study(study)]
    if report.skipped:
        lines += ["", *(f"- skipped: {escape(text)}" for text in report.skipped)]
    return "\n".join(lines)


def _results(report: Report) -> Iterator[str]:
    unit, written = size_column(report)
    misses = misses_by_case(report)
    head = ["scenario", "device", "outcome", "peaks in", f"measured{unit}", "predicted", "error", "static", "reserved"]
    rows = [_result(case, misses.get(case.number), written) for case in report.cases]
    yield from markdown_table(head, rows, left=range(4))


def _result(case: Case, miss: Miss | None, written: Callable[[int], str]) -> list[str]:
    phase = case.result.ledger.peak_phase.value if case.peak else ""
    outcome = case.outcome + (f": {case.problem}" if case.problem else "")
    sizes = sizes_of(case, written)
    errors = ["", "", ""]
    if miss:
        reserved = percent(miss.reserved.relative) if miss.reserved else ""
        errors = [percent(miss.error), EQUAL if miss.static_equal else "differs", reserved]
    return [escape(case.result.scenario.name), case.result.device, escape(outcome), phase, *sizes, *errors]


def _groups(report: Report) -> Iterator[str]:
    rows = [
        [group.by, escape(group.name), str(len(group.errors)), *error_cells(group.summary)] for group in report.groups
    ]
    yield from markdown_table(["error of the peak by", "", "records", "mean", "median", "worst"], rows, left=range(2))


def _study(study: Study) -> Iterator[str]:
    rows = [list(map(_cell, study.columns, row)) for row in study.rows]
    left = [i for i, column in enumerate(study.columns) if not column.number]
    yield from markdown_table([column.head for column in study.columns], rows, left=left)
    if study.findings:
        yield from ("", *(f"- {escape(sentence)}" for sentence in study.findings))


def _cell(column: Column, cell: Cell) -> str:
    text = escape(column.text(cell))
    return f"{text} ({escape(cell.small)})" if cell.small else text
