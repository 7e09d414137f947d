"""The head of the page: tiles with the figures that matter, the plots, the errors by group."""

from collections.abc import Iterator

from vramplan.error_table import Summary
from vramplan.report.html.document import both
from vramplan.report.html.drawing import NARROW, WIDE
from vramplan.report.html.markup import Html, el, joined, quantity
from vramplan.report.html.plots import distributions, scatter
from vramplan.report.report_facts import Report
from vramplan.report.report_words import counted, error_cells
from vramplan.units import human


def tiles(report: Report) -> Html:
    """Counts, errors and the largest peak."""
    return el("dl", *_tiles(report), class_="tiles")


def _tiles(report: Report) -> Iterator[Html]:
    failed = sum(case.outcome != "ok" for case in report.records)
    devices = sorted({case.result.device for case in report.cases})
    beside = counted(len(report.cases) - len(report.records), "prediction")
    note = f"{failed} did not end well" if failed else f"{beside} beside them"
    yield _tile("records", str(len(report.records)), f"{note}, on {' and '.join(devices)}")
    if report.closed_form:
        errors = Summary.of(miss.error for miss in report.closed_form)
        equal = sum(miss.static_equal for miss in report.closed_form)
        low, high = report.band
        yield _tile("median error", f"{errors.median:.2%}", "of the allocated peak, closed form")
        yield _tile("mean error", f"{errors.mean:.2%}", f"{report.in_band} from {low:+.2%} to {high:+.2%}")
        yield _tile("worst error", f"{errors.worst:.2%}", _worst(report))
        yield _tile(
            "equal to the byte", f"{equal} of {len(report.closed_form)}", "weights, constants, adapters, states"
        )
    largest = max(report.cases, key=lambda case: case.peak)
    if largest.peak:
        size = quantity(largest.peak, human(largest.peak))
        yield _tile("largest peak", size, f"in {largest.result.ledger.peak_phase.value}, {largest.result.device}")


def _worst(report: Report) -> Html:
    miss = max(report.closed_form, key=lambda miss: abs(miss.error))
    way = "too little" if miss.error < 0 else "too much" if miss.error else "equal"
    return joined((f"{way}: ", el("a", miss.case.result.scenario.name, href=f"#r{miss.case.number}")))


def _tile(name: str, figure: str, note: str) -> Html:
    return el("div", el("dt", name), el("dd", el("span", figure, class_="big"), el("small", note)), class_="tile")


def accuracy(report: Report) -> Html:
    """Predicted against measured, drawn for wide and for narrow windows."""
    low, high = report.band
    caption = (
        f"Each mark is a record against the closed form's answer to its scenario. Below the zero line the prediction "
        f"is too low, the side on which a run ends out of memory. Band: {low:+.2%} to {high:+.2%}."
    )
    drawings = (scatter(report, width=width) for width in (WIDE, NARROW))
    return el("figure", *both(*drawings), el("figcaption", caption))


def groups(report: Report) -> Html:
    """The distributions of errors, and the same as a table."""
    drawings = (distributions(report.groups, width=width) for width in (WIDE, NARROW))
    caption = "Each dot is a record; the stroke is the median, signs included. The table has the same order."
    return joined((el("figure", *both(*drawings), el("figcaption", caption)), _groups_table(report)))


def _groups_table(report: Report) -> Html:
    numbers = ("records", "mean", "median", "worst")
    head = el("tr", el("th", "group", scope="col"), *(el("th", name, scope="col", class_="n") for name in numbers))
    rows = []
    for group in report.groups:
        cells = [str(len(group.errors)), *error_cells(group.summary)]
        name = el("th", el("span", f"{group.by} ", class_="soft"), group.name, scope="row")
        rows.append(el("tr", name, *(el("td", cell, class_="n") for cell in cells)))
    caption = el("caption", "Magnitudes of the relative errors of the allocated peak")
    return el("table", caption, el("thead", head), el("tbody", *rows), class_="groups")
