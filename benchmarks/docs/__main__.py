"""Renews the pages and plots in docs/: `make docs`. What changed is for a person to read: it stands in sentences."""

import sys
from pathlib import Path

from benchmarks.docs.pages import PAGES, renewed
from benchmarks.docs.picture import render
from benchmarks.docs.plots import PLOTS

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Rewrite what differs, and say what."""
    made = {DOCS / name: renewed((DOCS / name).read_text(encoding="utf-8")) for name in PAGES}
    made |= {DOCS / "plots" / f"{plot.name}.svg": render(plot) for plot in PLOTS}
    changed = [file for file, text in made.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    for file in changed:
        file.write_text(made[file], encoding="utf-8")
        print(f"wrote {file.relative_to(DOCS.parent)}", file=sys.stderr)
    if not changed:
        print("docs/ is up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
