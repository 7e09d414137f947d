"""Formats as plots: signal to noise against bits per parameter, and how often each level is used."""

from typing import TYPE_CHECKING, Any

from vramplan.quant.errors import Tried
from vramplan.quant.study import Study
from vramplan.report.html.document import ONE_OF_BOTH, both, page
from vramplan.report.html.drawing import (
    NARROW,
    ROUND,
    SOFT,
    SQUARE,
    WIDE,
    embedded,
    in_style,
    new_figure,
    svg_of,
    tones,
)
from vramplan.report.html.markup import Html, el
from vramplan.report.html.tones import NARROW_BELOW
from vramplan.report.layout import Page
from vramplan.report.quant_text import render_study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 420
_PAGE_STYLE = """
body { margin: 0 auto; max-width: 1140px; padding: 20px; background: var(--bg); color: var(--fg) }
pre { overflow-x: auto; font-size: 12px }
"""


def render_quant_svg(study: Study) -> str:
    """A self-contained SVG. CannotRun without matplotlib."""
    body = _plots(study, WIDE)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="quant" '
        f'viewBox="0 0 {WIDE} {HEIGHT}" width="{WIDE}" height="{HEIGHT}">'
    )
    ground = f'<style>{tones(".quant")}</style><rect width="{WIDE}" height="{HEIGHT}" fill="var(--bg)"/>'
    return f"{head}\n{ground}\n{body}\n</svg>\n"


def render_quant_page(study: Study) -> str:
    """A self-contained page: the plots for wide and for narrow windows, and the text."""
    title = f"Quantisation formats on weights: {study.weights}"
    plots = both(_plots(study, WIDE), _plots(study, NARROW))
    style = tones(":root") + ONE_OF_BOTH + _PAGE_STYLE
    return page(title, style, el("h1", title), *plots, el("pre", render_study(study, Page())))


def _plots(study: Study, width: int) -> Html:
    beside = width >= NARROW_BELOW
    with in_style():
        figure = new_figure(width, HEIGHT if beside else 2 * HEIGHT)
        first, second = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
        _noise(first, study)
        _usage(second, study)
        text = svg_of(figure)
    return embedded(text, f"quant{width}", "Quantisation formats compared", _description(study), {})


def _noise(axes: "Axes", study: Study) -> None:
    """One mark per format: a circle without, a square with double quantisation; the one with more bits is named."""
    shown = [
        (tried.format, decibels)
        for tried in study.tried
        if (decibels := tried.total.decibels) is not None and tried.format.kind.four_bit
    ]  # int8, twice as far to the right, would leave the others no room
    named = {(made.kind, made.block): made for made, _ in sorted(shown, key=lambda pair: pair[0].bits.per_parameter)}
    for made, decibels in shown:
        marker, color = ("s", SQUARE) if made.double else ("o", ROUND)
        axes.plot([made.bits.per_parameter], [decibels], marker=marker, color=color, markersize=7)
        if named[made.kind, made.block] is made:
            look: Any = {"textcoords": "offset points", "color": SOFT, "fontsize": 9}
            axes.annotate(f"{made.kind} {made.block}", (made.bits.per_parameter, decibels), (7, 3), **look)
    for marker, color, label in (("o", ROUND, "one level of constants"), ("s", SQUARE, "double quantisation")):
        axes.plot([], [], marker=marker, color=color, linestyle="", label=label)
    axes.margins(x=0.2, y=0.1)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # inside, it would cover a mark or a name
    axes.set_title("Signal to noise, 4-bit formats", pad=30)
    axes.set(xlabel="bits per parameter", ylabel="dB")


def _usage(axes: "Axes", study: Study) -> None:
    """The share of weights at each level, one line per kind of format: its first one."""
    first: dict[str, Tried] = {}
    for tried in study.tried:
        if tried.format.kind.four_bit or len(study.tried) == 1:
            first.setdefault(tried.format.kind.value, tried)
    for (kind, tried), marker in zip(first.items(), ("o", "s", "^"), strict=False):
        levels = tried.format.kind.levels
        shares = [100 * count / tried.total.count for count in tried.total.codes]
        axes.plot(levels, shares, marker=marker if len(levels) <= 16 else "", markersize=5, linewidth=1.2, label=kind)
    axes.legend(loc="upper left")
    axes.set_ylim(bottom=0)
    axes.set(title="Use of the levels", xlabel="level", ylabel="% of the weights")


def _description(study: Study) -> str:
    found = (
        f"{tried.format.label}: {tried.total.decibels:.2f} dB"
        for tried in study.tried
        if tried.total.decibels is not None
    )
    return "; ".join(found)
