"""The studies of a report: each a table, with sentences below it; double quantisation with its bars above."""

from collections.abc import Iterator

from vramplan.report.html.bars import double_bars
from vramplan.report.html.document import Section
from vramplan.report.html.markup import Html, el, joined, quantity
from vramplan.report.report_facts import Report
from vramplan.report.report_studies import studies
from vramplan.report.report_study import ARROW, Cell, Column, Study


def study_sections(report: Report) -> Iterator[Section]:
    """One for each study that the report has something for."""
    for study in studies(report):
        bars = double_bars(report.doubles) if study.name == "double" else Html()
        yield Section(study.name, study.heading, study.note, joined((bars, _table(study), *_findings(study))))


def study_tables(report: Report) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Class and column names of each table, which narrow windows write into its cells."""
    for study in studies(report):
        yield _look(study), tuple(column.short for column in study.columns)


def _look(study: Study) -> str:
    return f"study-{study.name}"


def _table(study: Study) -> Html:
    head = el("tr", *(el("th", column.head, scope="col", class_=_side(column)) for column in study.columns))
    rows = (el("tr", _name(row[0], study.columns[0]), *map(_value, row[1:], study.columns[1:])) for row in study.rows)
    return el("table", el("thead", head), el("tbody", *rows), class_=f"cards study {_look(study)}")


def _value(cell: Cell, column: Column) -> Html:
    return el("td", _content(cell, column), class_=_side(column))


def _side(column: Column) -> str:
    return "n" if column.number else ""


def _name(cell: Cell, column: Column) -> Html:
    return el("th", _content(cell, column), scope="row")


def _content(cell: Cell, column: Column) -> Html:
    sizes = joined((quantity(size, column.written(size)) for size in cell.sizes), ARROW)
    shown = sizes if cell.sizes else joined((cell.text,))
    if cell.case is not None:
        shown = el("a", shown, href=f"#r{cell.case.number}")
    return joined((shown, el("small", cell.small))) if cell.small else shown


def _findings(study: Study) -> Iterator[Html]:
    return (el("p", sentence) for sentence in study.findings)
