"""Asks the field's estimators and vramplan about the same published measurements: `make peers`.

Writes reports/peers.json, and from it peers.md and peers.svg. The first run makes an environment per tool below
build/peers.
"""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.accuracy import REPORTS
from benchmarks.peers.ask import ask_tool, ask_vramplan
from benchmarks.peers.render import render_peers
from benchmarks.peers.rows import rows
from benchmarks.peers.tools import TOOLS

WORKING = Path("build") / "peers"


def main() -> None:
    """Ask, keep the answers, render them."""
    asked = rows(WORKING / "models")
    every = [ask_vramplan("trace", asked), ask_vramplan("analytic", asked)]
    for tool in TOOLS:
        print(f"asking {tool.name}", file=sys.stderr)
        every.append(ask_tool(tool, asked, WORKING.resolve()))
    body = {"date": datetime.now(UTC).date().isoformat(), "answers": [asdict(answers) for answers in every]}
    (REPORTS / "peers.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    text, picture = render_peers()
    (REPORTS / "peers.md").write_text(text, encoding="utf-8")
    (REPORTS / "peers.svg").write_bytes(picture)
    print(text[: text.index("![")])


if __name__ == "__main__":
    main()
