"""The tones that pages and pictures share, and the width below which they are narrow."""

from typing import NamedTuple


class Tone(NamedTuple):
    """A colour in either setting of the reader's."""

    light: str
    dark: str


TONES = {
    "bg": Tone("#ffffff", "#14181f"),
    "fg": Tone("#1d2433", "#e8ebf1"),
    "soft": Tone("#5b6475", "#9aa4b6"),
    "grid": Tone("#e3e6ec", "#2b313c"),
    "band": Tone("#f5f6f9", "#1a1f28"),
    "link": Tone("#2f5f92", "#8fbdee"),
    "under": Tone("#b4492a", "#ee8866"),
    "over": Tone("#2f6f9f", "#77aadd"),
    "good": Tone("#1c7a5c", "#5ccbaa"),
    "shade": Tone("#4477aa2e", "#77aadd33"),
    "round": Tone("#4477aa", "#77aadd"),
    "square": Tone("#cc5f38", "#ee8866"),
}
FONT = '13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
#: Pixels of a window below which pages show their narrow form.
NARROW_BELOW = 640


def light(names: str) -> str:
    """CSS variables for the named tones, as a light page has them."""
    return "; ".join(f"--{name}: {TONES[name].light}" for name in names.split())


def dark(names: str) -> str:
    """The same for a dark page."""
    return "; ".join(f"--{name}: {TONES[name].dark}" for name in names.split())
