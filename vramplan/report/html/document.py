"""What every page of this package stands in: one file that fetches nothing and runs no script."""

import vramplan
from vramplan.report.html.markup import Html, el

#: Nothing may be fetched and no script may run, whatever a record holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, style: str, *children: Html) -> str:
    """A whole page: the head, the body's `children`, and the footer."""
    head = el(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        el("title", title),
        Html(f"<style>{style}</style>"),
    )
    footer = el("footer", f"vramplan {vramplan.__version__}. Sizes are powers of 1024; point at one for its bytes.")
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{el("body", *children, footer)}\n</html>\n'
