"""A history as a page: a plot per scenario that moved, its moves in a table, all scenarios below."""

from vramplan.check.items import printable
from vramplan.history import History, Move, Point, Series
from vramplan.report.check_words import moved
from vramplan.report.comparison import difference, percent
from vramplan.report.history_plot import history_plot
from vramplan.report.history_text import answer, changed, date_text, span, sparkline
from vramplan.report.html.document import both, document
from vramplan.report.html.drawing import NARROW, WIDE
from vramplan.report.html.markup import Html, el, quantity
from vramplan.report.html.style import stylesheet
from vramplan.units import human

TITLE = "How memory moved"
_MOVES = ("", "peak", "difference", "relative", "moved most", "changed")
_ALL = ("", "results", "lowest peak", "highest peak", "first moved in")
_STYLE = """
.spark { letter-spacing: -.5px; color: var(--round) }
@media (min-width: 641px) {
  .moves th:first-child { white-space: nowrap } .n + td:not(.n), .n + th:not(.n) { padding-left: 22px } }
"""


def render_history_page(history: History) -> str:
    """One self-contained page: no script, no request. CannotRun when matplotlib, which draws the plots, is missing."""
    plots = [_section(series, f"s{i}") for i, series in enumerate(history.series) if series.moves]
    skipped = el("ul", *(el("li", printable(text)) for text in history.skipped)) if history.skipped else ""
    return document(
        TITLE,
        stylesheet(("moves", _MOVES), ("series", _ALL)) + _STYLE,
        el("header", el("h1", TITLE), el("p", answer(history), class_="lede")),
        el(
            "main",
            *plots,
            el("section", el("h2", "All scenarios"), _table(history), id="all"),
            *([el("section", el("h2", "Skipped files"), skipped, id="skipped")] if skipped else []),
        ),
    )


def _section(series: Series, name: str) -> Html:
    plots = both(history_plot(series, f"{name}-wide", width=WIDE), history_plot(series, f"{name}-narrow", width=NARROW))
    head = el("tr", *(el("th", text or "moved", scope="col", class_=_look(i)) for i, text in enumerate(_MOVES)))
    rows = (_move(number, point, point.move) for number, point in enumerate(series.moves, 1) if point.move)
    table = el("table", el("thead", head), el("tbody", *rows), class_="cards moves")
    return el("section", el("h2", printable(str(series.key))), el("figure", *plots), table, id=name)


def _look(column: int) -> str:
    return "n" if column in (1, 2, 3) else ""


def _move(number: int, point: Point, move: Move) -> Html:
    size = "-" if point.peak is None else quantity(point.peak, human(point.peak))
    pair = move.peak
    sizes = (quantity(pair.difference, difference(pair)), percent(pair.relative)) if pair else ("", "")
    most = "; ".join(filter(None, (moved(move.most) if move.most else "", move.outcome)))
    where = el("small", printable(point.item.source))
    return el(
        "tr",
        el("th", f"{number}: {date_text(point)}", where, scope="row"),
        *(el("td", cell, class_="n") for cell in (size, *sizes)),
        el("td", most),
        el("td", changed(move) or "no version changed"),
    )


def _table(history: History) -> Html:
    columns = ("scenario", *_ALL[1:])
    head = el("tr", *(el("th", text, scope="col", class_=_look(i)) for i, text in enumerate(columns)))
    rows = (_row(series, f"s{i}") for i, series in enumerate(history.series))
    return el("table", el("thead", head), el("tbody", *rows), class_="cards series")


def _row(series: Series, name: str) -> Html:
    text = printable(str(series.key))
    line = el("span", sparkline([point.peak for point in series.points]), class_="spark", aria_hidden="true")
    ends = (min(series.peaks), max(series.peaks)) if series.peaks else ()
    peaks: list[str] = [quantity(size, human(size)) for size in ends] or ["-", "-"]
    first = series.first_moved
    return el(
        "tr",
        el(
            "th",
            el("a", text, href=f"#{name}") if series.moves else text,
            el("small", span(series.points)),
            scope="row",
        ),
        *(el("td", cell, class_="n") for cell in (str(len(series.points)), *peaks)),
        el("td", line, " ", printable(first.item.source) if first else _still(series)),
    )


def _still(series: Series) -> str:
    return "nothing moved" if len(series.points) > 1 else "one result"
