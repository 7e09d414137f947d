"""The statistical plots, drawn by matplotlib: scales, ticks and layout are what a plotting library is for.

Stacked bars are HTML instead, which reflows on a phone, and timelines have their own drawing.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from vramplan.report.html.drawing import BG, FG, ROUND, SHADE, SOFT, SQUARE, embedded, in_style, new_figure, svg_of
from vramplan.report.html.markup import Html
from vramplan.report.html.tones import NARROW_BELOW
from vramplan.report.report_case import Miss
from vramplan.report.report_facts import Group, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marker and colour by device: told apart by shape alone.
_MARKS = {"cuda": ("o", ROUND), "cpu": ("s", SQUARE)}


def scatter(report: Report, *, width: int) -> Html:
    """Predicted against measured peaks, and their errors with the band; side by side, or one below the other."""
    misses, (low, high), beside = report.closed_form, report.band, width >= NARROW_BELOW
    with in_style():
        figure = new_figure(width, 400 if beside else 720)
        first, second = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
        _peaks(first, misses)
        _errors(second, report)
        text = svg_of(figure)
    links = {f"#r{m.case.number}": f"{m.case.result.scenario.name}: {m.error:+.2%}" for m in misses}
    description = f"{len(misses)} records; {report.in_band} errors lie between {low:+.2%} and {high:+.2%}."
    return embedded(text, f"scatter{width}", "Predicted against measured peaks", description, links)


def distributions(groups: Sequence[Group], *, width: int) -> Html:
    """Every error as a dot, one line per group, its median marked."""
    with in_style():
        figure = new_figure(width, 64 + 24 * len(groups))
        axes = figure.subplots()
        for y, group in enumerate(groups):
            percents = [100 * error for error in group.errors]
            axes.scatter(percents, [y] * len(percents), s=34, color=ROUND, alpha=0.5, linewidths=0)
            middle = median(percents)
            axes.plot([middle, middle], [y - 0.32, y + 0.32], color=FG, linewidth=2)
        _percent_axis(axes.xaxis, [error for group in groups for error in group.errors])
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.set_yticks(range(len(groups)), [_short(group, width) for group in groups])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("error of the allocated peak, %")
        text = svg_of(figure)
    description = "; ".join(f"{g.by} {g.name}: worst {g.summary.worst:.2%} of {len(g.errors)}" for g in groups)
    return embedded(text, f"errors{width}", "Errors by group", description, {})


def _peaks(axes: "Axes", misses: Sequence[Miss]) -> None:
    """Logarithmic on both axes, since records range from a laptop's MiB to a card's GiB."""
    sizes = [size for miss in misses for size in (miss.comparison.peak.reference, miss.comparison.peak.other)]
    low, high = _range(sizes)
    limits = (2**low, 2**high)
    axes.plot(limits, limits, color=SOFT, linewidth=1)
    _marks(axes, misses, [miss.comparison.peak.other for miss in misses])
    for axis, name in ((axes.xaxis, "measured"), (axes.yaxis, "predicted")):
        _byte_axis(axis, low, high)
        axis.set_label_text(f"{name} peak")
    axes.legend(loc="upper left")
    axes.set(xlim=limits, ylim=limits, title="Peaks: on the line is right")


def _errors(axes: "Axes", report: Report) -> None:
    misses = report.closed_form
    low, high = _range([miss.comparison.peak.reference for miss in misses])
    axes.axhspan(*(100 * edge for edge in report.band), color=SHADE, linewidth=0)
    axes.axhline(0, color=SOFT, linewidth=1)
    _marks(axes, misses, [100 * miss.error for miss in misses])
    _byte_axis(axes.xaxis, low, high)
    _percent_axis(axes.yaxis, [miss.error for miss in misses])
    axes.set(xlim=(2**low, 2**high), xlabel="measured peak", title=f"Errors, %: {report.in_band} in the band")


def _marks(axes: "Axes", misses: Sequence[Miss], heights: Sequence[float]) -> None:
    for device, (shape, color) in _MARKS.items():
        points = [(m, y) for m, y in zip(misses, heights, strict=True) if m.case.result.device == device]
        if points:
            drawn = axes.scatter(
                [m.comparison.peak.reference for m, _ in points],
                [y for _, y in points],
                s=42,
                marker=shape,
                color=color,
                edgecolors=BG,
                linewidths=0.8,
                label=f"{device} ({len(points)})",
            )
            drawn.set_urls([f"#r{m.case.number}" for m, _ in points])


def _range(sizes: Sequence[int]) -> tuple[float, float]:
    """Exponents of two around the sizes, with room for two ticks."""
    low, high = math.log2(max(min(sizes), 1)), math.log2(max(max(sizes), 1))
    margin = max(0.4, (2.1 - (high - low)) / 2)
    return low - margin, high + margin


def _byte_axis(axis: Any, low: float, high: float) -> None:
    """Ticks at powers of two, at most six."""
    exponents = range(math.ceil(low), math.floor(high) + 1)
    step = max(1, math.ceil(len(exponents) / 5))
    ticks = exponents[::step] or [round(low)]
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks([2.0**e for e in ticks], labels=[_power(e) for e in ticks])
    axis.set_ticks([], minor=True)


def _power(exponent: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    return f"{2 ** (exponent % 10)} {units[exponent // 10]}"


def _percent_axis(axis: Any, errors: Sequence[float]) -> None:
    """Linear, unless a few errors are so large that the others would be one line; both leave the largest a margin."""
    sizes = sorted(100 * abs(error) for error in errors)
    usual = max(sizes[len(sizes) * 3 // 4], 0.1)
    if sizes[-1] > 12 * usual:
        getattr(axis.axes, f"set_{axis.axis_name}scale")("symlog", linthresh=usual)
        axis.axes.autoscale(axis=axis.axis_name)  # a margin found on the linear scale is none on this one
        axis.set_major_formatter(lambda percent, _: f"{percent:g}")
    if sizes[-1] < 0.1:
        getattr(axis.axes, f"set_{axis.axis_name}lim")(-0.1, 0.1)


def _short(group: Group, width: int) -> str:
    room = 42 if width >= NARROW_BELOW else 16
    text = group.name if len(group.name) <= room else group.name[: room - 1] + "…"
    return f"{group.by}: {text}" if width >= NARROW_BELOW else text
