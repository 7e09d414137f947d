"""What every page of this package stands in: one file that fetches nothing and runs no script."""

from typing import NamedTuple

import vramplan
from vramplan.report.html.markup import Html, el
from vramplan.report.html.tones import NARROW_BELOW

#: Nothing may be fetched and no script may run, whatever a record holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Of drawings that are there twice, the one for this window.
ONE_OF_BOTH = f"""
svg {{ width: 100%; height: auto }} .narrow {{ display: none }}
@media (max-width: {NARROW_BELOW}px) {{ .wide {{ display: none }} .narrow {{ display: block }} }}
"""


class Section(NamedTuple):
    """A part of a page with a heading of its own; empty content leaves it out."""

    name: str
    """What links lead to."""
    heading: str
    note: str
    """What it shows; empty where the heading says it."""
    content: Html


def page(title: str, style: str, *children: Html) -> str:
    """A whole page: the head, and the body's `children`."""
    head = el(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("title", title),
        Html(f"<style>{style}</style>"),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{el("body", *children)}\n</html>\n'


def document(title: str, style: str, *children: Html) -> str:
    """A page of tables, whose footer says how sizes are told."""
    footer = el("footer", f"vramplan {vramplan.__version__}. Sizes are powers of 1024; point at one for its bytes.")
    return page(title, style, *children, footer)


def both(wide: Html, narrow: Html) -> tuple[Html, Html]:
    """A drawing for wide and for narrow windows, of which a page shows one."""
    return el("div", wide, class_="wide"), el("div", narrow, class_="narrow")
