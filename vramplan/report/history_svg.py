"""A history as one picture that stands alone: the scenarios that moved, one below the other, their moves in words."""

from html import escape

from vramplan.check.items import printable
from vramplan.history import History, Point, Series
from vramplan.report.check_words import moved
from vramplan.report.comparison import difference, percent
from vramplan.report.history_page import TITLE
from vramplan.report.history_plot import HEIGHT, history_plot
from vramplan.report.history_text import answer, changed, date_text
from vramplan.report.html.drawing import WIDE, tones

_ROW, _TEXT_ROOM = 19, 150  # pixels of a line of text; letters that fit beside each other

_STYLE = """
.history text { fill: var(--fg) } .history .soft { fill: var(--soft) } .history .b { font-weight: 600; font-size: 16px }
"""


def render_history_svg(history: History) -> str:
    """One SVG that stands alone: each scenario that moved, one below the other, with its moves in words."""
    y = 24
    parts = [_text(f"{TITLE}: {answer(history)}", y, "b")]
    for i, series in enumerate(history.series):
        if series.moves:
            block, y = _panel(series, f"s{i}", y + 14)
            parts += block
    height = y + 16
    words = escape(answer(history))
    title = f'<title id="history-title">{TITLE}</title><desc id="history-desc">{words}</desc>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="history" '
        f'viewBox="0 0 {WIDE} {height}" width="{WIDE}" height="{height}" role="img" '
        f'aria-labelledby="history-title history-desc">\n{title}\n<style>{tones(".history")}{_STYLE}</style>\n'
        f'<rect width="{WIDE}" height="{height}" fill="var(--bg)"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(series: Series, name: str, y: int) -> tuple[list[str], int]:
    """The heading, the plot and a line per move; and where they end."""
    lines = [_text(printable(str(series.key)), y + 18, "b")]
    plot = history_plot(series, name, width=WIDE)
    lines.append(plot.replace("<svg ", f'<svg x="0" y="{y + 26}" width="{WIDE}" height="{HEIGHT}" ', 1))
    y += 26 + HEIGHT
    for number, point in enumerate(series.moves, 1):
        y += _ROW
        lines.append(_text(f"{number}: {_told(point)}", y))
    return lines, y + 10


def _told(point: Point) -> str:
    move = point.move
    assert move is not None, "only moves are told"
    pair = f"peak {difference(move.peak)} ({percent(move.peak.relative)})" if move.peak else ""
    parts = (date_text(point), move.outcome, pair, moved(move.most) if move.most else "", changed(move))
    return "; ".join(filter(None, parts))


def _text(text: str, y: int, look: str = "") -> str:
    """A line of text; what is too long for it is cut, and told in full by a tooltip."""
    short = text if len(text) <= _TEXT_ROOM else text[: _TEXT_ROOM - 1] + "…"
    return f'<text class="{look}" x="14" y="{y}"><title>{escape(text)}</title>{escape(short)}</text>'
