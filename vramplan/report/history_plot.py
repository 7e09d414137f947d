"""One series as a plot: the peak of each result as a line of steps, the moves numbered, runs without memory crossed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vramplan.check.items import printable
from vramplan.history import Point, Series
from vramplan.report.html.drawing import BG, FG, ROUND, SQUARE, embedded, in_style, new_figure, svg_of
from vramplan.report.html.markup import Html
from vramplan.report.layout import table_unit
from vramplan.units import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 220
_LETTER = 7.0  # pixels of a letter of a tick, for how many fit
_MONTH_DAY = 2  # dates that are closer than this, in days, are told with their hour


def history_plot(series: Series, name: str, *, width: int) -> Html:
    """The series as an SVG element `width` pixels wide, whose ids begin with `name`; CannotRun without matplotlib."""
    with in_style():
        figure = new_figure(width, HEIGHT)
        axes = figure.subplots()
        _draw(axes, series.points, width)
        text = svg_of(figure)
    return embedded(text, name, f"Peak of {printable(str(series.key))}", _description(series), {})


def _draw(axes: "Axes", points: Sequence[Point], width: int) -> None:
    places = _places(points)
    known = [(x, point.peak) for x, point in zip(places, points, strict=True) if point.peak is not None]
    unit, factor = table_unit(max((peak for _, peak in known), default=0))
    heights = [peak / factor for _, peak in known]
    low, high = min(heights, default=0.0), max(heights, default=0.0)
    margin = 0.18 * (high - low) or 0.05 * high or 1.0
    axes.set(ylim=(low - margin, high + 1.6 * margin), title=f"peak, {unit}")  # room above for the numbers
    look: Any = {"color": ROUND, "linewidth": 2, "drawstyle": "steps-post", "marker": "o", "markersize": 5}
    axes.plot([x for x, _ in known], heights, **look)
    _mark_moves(axes, points, places, factor, low - 0.5 * margin)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    _label(axes, points, places, width)


def _mark_moves(axes: "Axes", points: Sequence[Point], places: Sequence[float], factor: int, bottom: float) -> None:
    """A numbered square where something moved; a cross, at the bottom, for a run that has no memory."""
    number = 0
    for x, point in zip(places, points, strict=True):
        y = bottom if point.peak is None else point.peak / factor
        if point.peak is None:
            axes.plot([x], [y], color=SQUARE, marker="x", markersize=9, markeredgewidth=2.5)
        if point.move:
            number += 1
            if point.peak is not None:
                axes.plot([x], [y], color=SQUARE, marker="s", markersize=9, markeredgecolor=BG)
            fell = point.move.peak is not None and point.move.peak.difference < 0  # the line comes from above
            place, side = ((0, -7), "top") if fell else ((0, 7), "bottom")
            look: Any = {"textcoords": "offset points", "ha": "center", "va": side, "color": FG, "fontweight": "bold"}
            axes.annotate(str(number), (x, y), place, **look)


def _dated(points: Sequence[Point]) -> bool:
    """Whether the horizontal axis is time: every result says when it was measured, and not all at once."""
    return all(point.date for point in points) and len({point.date for point in points}) > 1


def _places(points: Sequence[Point]) -> list[float]:
    """Where each result stands: seconds since the first, or its number in the order of the files."""
    dates = [point.date for point in points if point.date]
    return (
        [(date - dates[0]).total_seconds() for date in dates] if _dated(points) else [*map(float, range(len(points)))]
    )


def _label(axes: "Axes", points: Sequence[Point], places: Sequence[float], width: int) -> None:
    """Each result its tick, as many as have room: its date, or its number."""
    texts = _texts(points)
    room = width * 0.85 / max(places[-1] - places[0], 1e-9)
    needed = 1.5 * (max(map(len, texts)) + 1) * _LETTER  # the first and the last label stand beside their ticks
    ticks: list[int] = []
    for i in range(len(points)):
        if not ticks or (places[i] - places[ticks[-1]]) * room >= needed:
            ticks.append(i)
    axes.set_xticks([places[i] for i in ticks], [texts[i] for i in ticks])
    span = places[-1] - places[0] or 1.0
    axes.set_xlim(places[0] - 0.04 * span, places[-1] + 0.04 * span)
    _align_ends(axes)


def _texts(points: Sequence[Point]) -> list[str]:
    if not _dated(points):
        return [f"result {i}" for i in range(1, len(points) + 1)]
    dates: Any = [point.date for point in points]
    close = (dates[-1] - dates[0]).days < _MONTH_DAY
    return [f"{date:%m-%d %H:%M}" if close else f"{date:%Y-%m-%d}" for date in dates]


def _align_ends(axes: "Axes") -> None:
    """The first label begins and the last one ends at its tick, so that neither sticks out of a narrow drawing."""
    labels = axes.get_xticklabels()
    if len(labels) > 1:
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")


def _description(series: Series) -> str:
    peaks = series.peaks
    sizes = f"from {human(peaks[0])} to {human(peaks[-1])}" if peaks else "none with memory"
    moved = series.first_moved
    told = f"; first moved in {printable(moved.item.source)}" if moved else "; nothing moved"
    return f"{len(series.points)} results, {sizes}{told}."
