"""One drawing of a sampled timeline, as the lines of an SVG document.

Drawn by hand rather than with a plotting library, so that the picture follows the reader's light or dark setting, fits
a narrow page, and can be read aloud.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import groupby

from vramplan.allocator import Replay
from vramplan.ledger import Component
from vramplan.report.html.tones import FONT, NARROW_BELOW, dark, light
from vramplan.report.timeline_samples import INDEX, Samples
from vramplan.units import GIB, KIB, MIB, human

# Paul Tol's "light" qualitative scheme and three of his "bright" one: distinct under every kind of colour blindness
# (https://sronpersonalpages.nl/~pault/, technical note SRON/EPS/TN/09-002). In the order of the stack, bottom first.
COLORS = {
    Component.WEIGHTS: "#4477aa",
    Component.QUANT_STATE: "#77aadd",
    Component.UNQUANTIZED: "#99ddff",
    Component.ADAPTERS: "#44bb99",
    Component.OPTIMIZER: "#bbcc33",
    Component.GRADIENTS: "#aaaa00",
    Component.CACHE: "#aa3377",
    Component.ACTIVATIONS: "#eedd88",
    Component.LOGITS: "#ee8866",
    Component.WORKSPACE: "#ffaabb",
    Component.ALLOCATOR: "#dddddd",
    Component.CONTEXT: "#bbbbbb",
    Component.UNKNOWN: "#888888",
}

_SETTINGS = f"""
.vp {{ {light("bg fg soft grid band")}; background: var(--bg);
  font: {FONT} }}
@media (prefers-color-scheme: dark) {{
  .vp {{ {dark("bg fg soft grid band")} }} }}
"""
_PICTURE = """\
.vp text { fill: var(--fg) } .vp .soft { fill: var(--soft) } .vp .b { font-weight: 600 } .vp .h { font-size: 17px }
.vp .grid { stroke: var(--grid) } .vp .band { fill: var(--band) } .vp .edge { stroke: var(--soft); stroke-opacity: .45 }
.vp .area { stroke-width: 1; stroke-linejoin: round } .vp .line { fill: none; stroke: var(--fg); stroke-width: 1.5 }
.vp .limit { stroke-dasharray: 5 4 } .vp .mark { fill: var(--bg); stroke: var(--fg); stroke-width: 2 }
.vp .halo { stroke: var(--bg); stroke-width: 4; paint-order: stroke; stroke-linejoin: round }
.vp .num { font-variant-numeric: tabular-nums }
"""
_STYLE = _SETTINGS + _PICTURE

_LEFT, _RIGHT, _HEIGHT, _ROW, _HEADROOM = 52, 14, 300, 20, 18  # margins, height of the plot, rows below it
_TOP_TENSORS = 6
_LETTER, _HEADING_LETTER = 7.2, 10.6  # width of a letter at 13 and 17 pixels in a wide font, for line breaks
_LABEL_LETTER = 6.6  # ... on average
_LEGEND_LETTER = 7.4  # ... of a legend, which may be in capitals


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the legend."""

    mark: str
    """SVG of its key, drawn at the origin"""
    text: str
    size: str


@dataclass(frozen=True)
class Picture:
    """Lays out one picture; lengths are SVG units, which are pixels at the intended width."""

    samples: Samples
    title: str
    replay: Replay | None
    budget: int | None
    width: int

    def lines(self) -> Iterator[str]:
        """The lines of the SVG document."""
        name = f"vp{self.width}"
        height = self._bottom + 44 + _ROW * self._legend_rows
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="vp" viewBox="0 0 {self.width} {height}" '
            f'width="{self.width}" height="{height}" role="img" aria-labelledby="{name}-title {name}-desc">\n'
            f'<title id="{name}-title">{escape(self.title)}</title>\n'
            f'<desc id="{name}-desc">{escape(self._description)}</desc>\n<style>{_STYLE}</style>\n'
            f'<rect width="{self.width}" height="{height}" fill="var(--bg)"/>\n'
        )
        for draw in (self._headline, self._phases, self._scale, self._stack, self._limits, self._peak, self._legend):
            yield from draw()
        yield "</svg>\n"

    # -- what it says --

    @property
    def _summary(self) -> str:
        phase = self.samples.visit(self.samples.peak).phase
        if self.replay is None or not self.replay.marks:
            return f"peak {human(sum(self.samples.held))} of tensors, in {phase}"
        mark = self.replay.peak
        return f"peak {human(mark.allocated)} allocated, in {mark.phase} · {human(self.replay.reserved)} reserved"

    @property
    def _description(self) -> str:
        parts = ", ".join(f"{part} {human(size)}" for part, size in self._parts if size)
        tensors = ", ".join(f"{group.words} {human(group.bytes)}" for group in self.samples.tensors[:_TOP_TENSORS])
        return f"{self._summary}. At the peak: {parts}. Largest tensors: {tensors}."

    @cached_property
    def _parts(self) -> list[tuple[Component, int]]:
        """What each component of the picture holds at the peak, nothing included, in the order of the stack."""
        highest = [max(column) for column in zip(*self.samples.columns, strict=True)]
        return [(part, self.samples.held[INDEX[part]]) for part in COLORS if highest[INDEX[part]]]

    @cached_property
    def _title_lines(self) -> list[str]:
        return textwrap.wrap(self.title, int((self.width - 2 * _RIGHT) / _HEADING_LETTER)) or [""]

    @cached_property
    def _summary_lines(self) -> list[str]:
        return textwrap.wrap(self._summary, int((self.width - 2 * _RIGHT) / _LETTER))

    # -- where things stand --

    @property
    def _top(self) -> int:
        return 26 + 22 * len(self._title_lines) + 18 * len(self._summary_lines)

    @property
    def _bottom(self) -> int:
        return self._top + _HEIGHT

    @cached_property
    def _drawn_limits(self) -> list[tuple[str, int]]:
        """The reserved line and the budget, unless it is so high that the stack would be squashed."""
        reserved = [("reserved", self.replay.reserved)] if self.replay and self.replay.reserved else []
        reach = max([sum(self.samples.held), *(size for _, size in reserved)])
        return [*reserved, *([("budget", self.budget)] if self.budget and self.budget <= 1.5 * reach else [])]

    @cached_property
    def _highest(self) -> int:
        return max([sum(self.samples.held), *(size for _, size in self._drawn_limits), 1])

    def _x(self, position: float) -> float:
        return round(_LEFT + position * (self.width - _LEFT - _RIGHT), 1)

    def _y(self, size: float) -> float:
        return round(self._bottom - size / self._highest * (_HEIGHT - _HEADROOM), 1)

    @property
    def _unit(self) -> tuple[int, str]:
        units = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
        return next((unit for unit in units if self._highest >= unit[0]), (1, "B"))

    # -- its parts --

    def _headline(self) -> Iterator[str]:
        y = 8
        for line in self._title_lines:
            y += 22
            yield f'<text class="b h" x="{_RIGHT}" y="{y}">{escape(line)}</text>\n'
        for line in self._summary_lines:
            y += 18
            yield f'<text class="soft" x="{_RIGHT}" y="{y}">{escape(line)}</text>\n'

    def _phases(self) -> Iterator[str]:
        for i, visit in enumerate(self.samples.visits):
            left, right = self._x(visit.left), self._x(visit.right)
            shape = f'x="{left}" y="{self._top}" width="{right - left:.1f}" height="{_HEIGHT}"'
            look = 'class="band"' if i % 2 else 'fill="none"'
            yield f"<rect {look} {shape}><title>{visit.phase}</title></rect>\n"
            if i:
                yield f'<path class="edge" d="M{left} {self._top}V{self._bottom + 6}"/>\n'
            if len(visit.phase) * _LABEL_LETTER <= right - left + 4:  # better named tightly than not at all
                middle = (left + right) / 2
                yield f'<text x="{middle:.1f}" y="{self._bottom + 18}" text-anchor="middle">{visit.phase}</text>\n'

    def _scale(self) -> Iterator[str]:
        factor, unit = self._unit
        step = _step(self._highest / factor)
        yield f'<text class="soft" x="{_LEFT - 8}" y="{self._top + 2}" text-anchor="end">{unit}</text>\n'
        for i in range(int(self._highest / factor / step) + 1):
            y = self._y(i * step * factor)
            yield f'<path class="grid" d="M{_LEFT} {y}H{self.width - _RIGHT}"/>\n'
            if y > self._top + 14:
                yield f'<text class="soft num" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{i * step:g}</text>\n'

    def _stack(self) -> Iterator[str]:
        below = [0] * len(self.samples.columns)
        for component, color in COLORS.items():
            above = [low + held[INDEX[component]] for low, held in zip(below, self.samples.columns, strict=True)]
            if above != below:
                look = f'class="area" fill="{color}" stroke="{color}"'
                yield f'<path {look} d="{self._area(below, above)}"><title>{component}</title></path>\n'
            below = above

    def _area(self, below: Sequence[int], above: Sequence[int]) -> str:
        """The outlines between two rows of columns, one per stretch where they differ by a visible height."""
        edges = list(zip(map(self._y, below), map(self._y, above), strict=True))
        stretches = groupby(range(len(edges)), key=lambda i: edges[i][0] > edges[i][1])
        return "".join(self._outline(edges, list(columns)) for differs, columns in stretches if differs)

    def _outline(self, edges: Sequence[tuple[float, float]], columns: Sequence[int]) -> str:
        """Along the upper edge to the right, along the lower one back."""
        n, first, last = len(edges), columns[0], columns[-1]
        path = [f"M{self._x(first / n)} {edges[first][1]}"]
        path += [f"H{self._x(i / n)}V{edges[i][1]}" for i in columns[1:] if edges[i][1] != edges[i - 1][1]]
        path.append(f"H{self._x((last + 1) / n)}V{edges[last][0]}")
        path += [f"H{self._x(i / n)}V{edges[i - 1][0]}" for i in columns[:0:-1] if edges[i][0] != edges[i - 1][0]]
        return "".join(path) + f"H{self._x(first / n)}Z"

    def _limits(self) -> Iterator[str]:
        for name, size in self._drawn_limits:
            path = f"M{self._x(0)} {self._y(size)}" if name == "budget" else self._reserved()
            look = "line limit" if name == "budget" else "line"
            yield f'<path class="{look}" d="{path}H{self._x(1)}"><title>{name} {human(size)}</title></path>\n'

    def _reserved(self) -> str:
        """The step function of reserved bytes, with the last of several steps that fall on one place."""
        assert self.replay is not None
        steps = {self._x(self.samples.position(event)): self._y(size) for event, size in self.replay.growth}
        return f"M{self._x(0)} {self._y(0)}" + "".join(f"H{x}V{y}" for x, y in steps.items())

    def _peak(self) -> Iterator[str]:
        size = sum(self.samples.held)
        x, y = self._x(self.samples.position(self.samples.peak)), self._y(size)
        text = f"{human(size)} of tensors"
        # to the right, where the reserved line, which only rises, is out of the way
        room = x + 10 + len(text) * _LETTER < self.width - _RIGHT
        anchor, shift = ("start", 10) if room else ("end", -10)
        yield f'<circle class="mark" cx="{x}" cy="{y}" r="4"/>\n'
        yield f'<text class="b halo" x="{x + shift}" y="{y + 4}" text-anchor="{anchor}">{text}</text>\n'

    # -- the legend --

    @cached_property
    def _blocks(self) -> list[tuple[str, list[_Row]]]:
        """What the peak consists of, and the largest tensors there."""
        rows = [_Row(_swatch(COLORS[part]), part.value, self._amount(size)) for part, size in reversed(self._parts)]
        for name, size in self._drawn_limits:
            look = "line limit" if name == "budget" else "line"
            text = name if name == "budget" else f"{name}, at most"
            rows.insert(0, _Row(f'<path class="{look}" d="M0 -4H12"/>', text, self._amount(size)))
        tensors = [
            _Row(_swatch(COLORS[group.component]), group.words, self._amount(group.bytes))
            for group in self.samples.tensors[:_TOP_TENSORS]
        ]
        unit = self._unit[1]
        return [(f"at the peak, {unit}", rows), (f"largest tensors there, {unit}", tensors)]

    def _amount(self, size: int) -> str:
        return f"{size / self._unit[0]:.2f}"

    @property
    def _beside(self) -> bool:
        return self.width >= NARROW_BELOW

    @property
    def _legend_rows(self) -> int:
        lengths = [len(rows) + 1 for _, rows in self._blocks]
        return max(lengths) if self._beside else sum(lengths) + 1

    def _legend(self) -> Iterator[str]:
        y = self._bottom + 54
        width = (self.width - _LEFT - _RIGHT - 40) // 2 if self._beside else self.width - 2 * _RIGHT
        x = _LEFT if self._beside else _RIGHT
        for heading, rows in self._blocks:
            yield f'<text class="soft" x="{x}" y="{y}">{heading}</text>\n'
            yield from self._legend_block(rows, x, y + _ROW, width)
            x, y = (x + width + 40, y) if self._beside else (x, y + _ROW * (len(rows) + 2))

    def _legend_block(self, rows: Sequence[_Row], x: int, y: int, width: int) -> Iterator[str]:
        room = int((width - 75) / _LEGEND_LETTER)
        for i, row in enumerate(rows):
            text = row.text if len(row.text) <= room else f"{row.text[: room // 2 - 1]}…{row.text[-room // 2 :]}"
            yield (
                f'<g transform="translate({x} {y + i * _ROW})"><title>{escape(row.text)}</title>{row.mark}'
                f'<text x="20">{escape(text)}</text>'
                f'<text class="num" x="{width}" text-anchor="end">{row.size}</text></g>\n'
            )


def _swatch(color: str) -> str:
    return f'<rect y="-10" width="12" height="12" rx="2" fill="{color}"/>'


def _step(highest: float) -> float:
    """The distance of grid lines: 1, 2 or 5 times a power of ten, four to nine of them."""
    power = 10.0 ** math.floor(math.log10(highest / 4))
    return max(power * m for m in (1, 2, 5) if power * m <= highest / 4)
