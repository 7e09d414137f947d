"""What the pages' plots share: the components in groups with their colours, stacked bars, and the SVG document.

Colours are those of the timeline pictures, distinct under every kind of colour blindness, always in the same order. The
ground is part of the picture and follows the reader's light or dark setting together with the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vramplan.ledger import Component, Ledger, Phase
from vramplan.report.html.drawing import BG, FG, embedded, in_style, new_figure, svg_of
from vramplan.report.html.tones import FONT, dark, light
from vramplan.report.timeline_picture import COLORS
from vramplan.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = f"""
.doc {{ {light("bg fg soft grid shade round")};
  {light("square")}; color-scheme: light dark;
  font: {FONT} }}
@media (prefers-color-scheme: dark) {{ .doc {{ {dark("bg fg soft grid")};
  {dark("shade round square")} }} }}
"""
_INK, _PAPER = "#10151f", "#fdfdfd"  # on the components' colours, which are the same in both settings
_LEGIBLE = 0.034  # of the axis: a thinner part has no room for its size


@dataclass(frozen=True, slots=True)
class Group:
    """Components that a plot shows as one."""

    name: str
    components: tuple[Component, ...]

    @property
    def color(self) -> str:
        """That of its first component."""
        return COLORS[self.components[0]]

    @property
    def ink(self) -> str:
        """What is legible on it."""
        return _PAPER if self.components[0] is Component.WEIGHTS else _INK

    def gib(self, ledger: Ledger, phase: Phase) -> float:
        """What the group holds at the highest moment of a phase."""
        return sum(ledger.bytes(phase, component) for component in self.components) / GIB


#: From the bottom of a stack: what stays first, what comes and goes last.
GROUPS = (
    Group("weights, quant-state", (Component.WEIGHTS, Component.QUANT_STATE)),
    Group("unquantized", (Component.UNQUANTIZED,)),
    Group("adapters, gradients, optimizer", (Component.ADAPTERS, Component.GRADIENTS, Component.OPTIMIZER)),
    Group("activations", (Component.ACTIVATIONS,)),
    Group("logits", (Component.LOGITS,)),
    Group("workspace, allocator", (Component.WORKSPACE, Component.ALLOCATOR)),
)


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture of a page."""

    name: str
    """File name below docs/plots, without its ending."""
    title: str
    description: str
    """Read aloud in place of the picture."""
    width: int
    height: int
    draw: "Callable[[Figure], None]"


def render(plot: Plot) -> str:
    """The plot as a self-contained SVG, the same bytes every time. CannotRun without matplotlib."""
    with in_style():
        figure = new_figure(plot.width, plot.height)
        plot.draw(figure)
        text = svg_of(figure)
    body = embedded(text, plot.name, plot.title, plot.description, {})
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="doc" '
        f'viewBox="0 0 {plot.width} {plot.height}" width="{plot.width}" height="{plot.height}">'
    )
    ground = f'<style>{_STYLE}</style><rect width="{plot.width}" height="{plot.height}" fill="var(--bg)"/>'
    return f"{head}\n{ground}\n{body}\n</svg>\n"


def parts(ledger: Ledger, phase: Phase) -> Mapping[Group, float]:
    """GiB of every group at the highest moment of a phase. They add up to what is allocated then."""
    found = {group: group.gib(ledger, phase) for group in GROUPS}
    assert round(sum(found.values()) * GIB) == ledger.allocated(phase)
    return found


def parts_of_peak(ledger: Ledger) -> Mapping[Group, float]:
    """GiB of every group at the highest moment of the run."""
    return parts(ledger, ledger.peak_phase)


def stacked_bars(axes: "Axes", bars: Sequence[tuple[str, Mapping[Group, float]]], *, across: bool = False) -> None:
    """One stack per bar, its parts with their sizes, its sum at the end; `across` lays the bars down."""
    places = range(len(bars))
    highest = max(sum(found.values()) for _, found in bars)
    sums = [0.0] * len(bars)
    for group in GROUPS:
        sizes = [found[group] for _, found in bars]
        look: Any = {"color": group.color, "label": group.name, "edgecolor": BG, "linewidth": 0.8}
        drawn = (
            axes.barh(places, sizes, 0.72, left=sums, **look) if across else axes.bar(places, sizes, 0.72, sums, **look)
        )
        room = (_LEGIBLE + 0.006 if across else _LEGIBLE) * highest
        labels = [f"{size:.2f}" if size > room else "" for size in sizes]
        axes.bar_label(drawn, labels, label_type="center", color=group.ink, fontsize=10)
        sums = [below + size for below, size in zip(sums, sizes, strict=True)]
    axes.bar_label(drawn, [f"{total:.2f} GiB" for total in sums], padding=4, color=FG, fontsize=11, fontweight="bold")
    _name_bars(axes, [name for name, _ in bars], highest, across=across)


def _name_bars(axes: "Axes", names: Sequence[str], highest: float, *, across: bool) -> None:
    if across:
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlim=(0, highest * 1.13), xlabel="GiB")
        axes.grid(visible=False, axis="y")
    else:
        axes.set_xticks(range(len(names)), names)
        axes.set(ylim=(0, highest * 1.08), ylabel="GiB")
        axes.grid(visible=False, axis="x")


def legend(figure: "Figure", axes: "Axes", *, columns: int) -> None:
    """Names of the groups above the plot, in the order of the stack from its beginning."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)
