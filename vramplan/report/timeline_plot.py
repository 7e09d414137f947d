"""A timeline as a picture: memory over the run, stacked by component, phases marked, the peak explained."""

from vramplan.allocator import Replay
from vramplan.report.html.document import ONE_OF_BOTH, both, page
from vramplan.report.html.markup import Html
from vramplan.report.html.tones import NARROW_BELOW, TONES
from vramplan.report.timeline_picture import Picture
from vramplan.report.timeline_samples import sample
from vramplan.timeline import Timeline

WIDE, NARROW = 960, 400  # pixels that the two drawings of a page are made for

_PAGE_STYLE = f"""
body {{ margin: 0 auto; max-width: 1240px; padding: 16px; background: {TONES["bg"].light} }}
@media (prefers-color-scheme: dark) {{ body {{ background: {TONES["bg"].dark} }} }}
@media (max-width: {NARROW_BELOW}px) {{ body {{ padding: 8px }} }}
"""


def render_timeline(
    timeline: Timeline, *, title: str, replay: Replay | None = None, budget: int | None = None, width: int = WIDE
) -> str:
    """A self-contained SVG, `width` units wide: the stack of components over the run, and what the peak consists of.

    With the `replay` of the timeline it also draws what the allocator reserves; with a `budget` in bytes, that limit.
    """
    return "".join(Picture(sample(timeline), title, replay, budget, width).lines())


def render_timeline_page(
    timeline: Timeline, *, title: str, replay: Replay | None = None, budget: int | None = None
) -> str:
    """A self-contained HTML page with the same picture, drawn once for wide and once for narrow windows."""
    samples = sample(timeline)
    wide, narrow = (Html("".join(Picture(samples, title, replay, budget, width).lines())) for width in (WIDE, NARROW))
    return page(title, ONE_OF_BOTH + _PAGE_STYLE, *both(wide, narrow))


#: What draws a file, by its suffix.
PICTURES = {".html": render_timeline_page, ".svg": render_timeline}
