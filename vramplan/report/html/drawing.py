"""What every plot stands on: matplotlib in the page's style, and its SVG made part of a page.

Colours that stand for the page's tones become CSS variables, so that a plot follows the reader's light or dark setting;
text stays text, in the page's font; points may link to their result.
"""

import io
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from vramplan.errors import require_installed
from vramplan.report.html.markup import Html
from vramplan.report.html.tones import FONT, dark, light

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, NARROW = 1100, 372  # units, which are pixels at the intended width

#: Colours that matplotlib draws with, and the page's tone that takes the place of each.
FG, SOFT, GRID, BG, SHADE, ROUND, SQUARE = (f"#01020{i}" for i in range(3, 10))
_TONES = {FG: "fg", SOFT: "soft", GRID: "grid", BG: "bg", SHADE: "shade", ROUND: "round", SQUARE: "square"}

_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "vramplan",  # the same report gives the same bytes
    "font.size": 12,
    "text.color": FG,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "legend.frameon": False,
    "legend.handletextpad": 0.3,
}


def tones(scope: str) -> str:
    """The page's tones and font for what `scope` selects, where the page's stylesheet is not there."""
    names = " ".join(_TONES.values())
    night = f"@media (prefers-color-scheme: dark) {{ {scope} {{ {dark(names)} }} }}"
    return f"{scope} {{ {light(names)}; font: {FONT} }}\n{night}\n"


def new_figure(width: int, height: int) -> "Figure":
    """An empty figure whose layout keeps labels from each other; lengths in pixels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width / 72, height / 72), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))


def require_plots() -> None:
    """CannotRun without matplotlib."""
    hint = "pip install 'vramplan[report]'; everything but the plots works without it"
    require_installed("a plot", ("matplotlib",), hint=hint)


def in_style() -> Any:
    """The context that draws in the page's style. CannotRun without matplotlib."""
    require_plots()
    import matplotlib as mpl

    return mpl.rc_context(dict(_STYLE))


def svg_of(figure: "Figure") -> str:
    """The figure as matplotlib writes it, the same bytes every time."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue()


def embedded(text: str, name: str, title: str, description: str, links: Mapping[str, str]) -> Html:
    """matplotlib's SVG as an element of the page: ids of its own, the page's tones and font, a title, no metadata."""
    body = re.sub(r"<(metadata|style)[ >].*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'(?:xlink:)?href="#([^"]+)"', lambda m: _href(m[1], name), body)
    body = re.sub(r' id="(?!r\d)([^"]+)"', rf' id="{name}-\1"', body)
    body = body.replace("url(#", f"url(#{name}-")
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]+;? ?", "", body)
    for drawn, tone in _TONES.items():
        body = body.replace(drawn, f"var(--{tone})")
    body = re.sub(r'<a href="(#r\d+)"[^>]*>', lambda m: _link(m[1], links[m[1]]), body)
    box = re.search(r'viewBox="[^"]+"', body)
    head = f'<svg class="plot" {box[0] if box else ""} role="group" aria-labelledby="{name}-title {name}-desc">'
    words = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    return Html(head + words + body[body.index(">") + 1 :].replace("\n", ""))


def _link(target: str, label: str) -> str:
    """A mark as a link with a tooltip, opened on this page; the table has the same links for the keyboard."""
    return f'<a href="{target}" tabindex="-1"><title>{escape(label)}</title>'


def _href(target: str, name: str) -> str:
    """Links to results stay; references inside the drawing get its name."""
    return f'href="#{target}"' if re.fullmatch(r"r\d+", target) else f'href="#{name}-{target}"'
