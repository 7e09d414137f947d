"""Asks the field's estimators and vramplan about the same published measurements: `make peers`.

Writes reports/peers.md, peers.svg and peers.json. The first run makes an environment per tool below build/peers.
"""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.accuracy import REPORTS
from benchmarks.peers.ask import ask_tool, ask_vramplan
from benchmarks.peers.render import page, plot, score
from benchmarks.peers.rows import rows
from benchmarks.peers.tools import TOOLS

WORKING = Path("build") / "peers"


def main() -> None:
    """Ask, score, write."""
    asked = rows(WORKING / "models")
    every = [ask_vramplan("trace", asked), ask_vramplan("analytic", asked)]
    for tool in TOOLS:
        print(f"asking {tool.name}", file=sys.stderr)
        every.append(ask_tool(tool, asked, WORKING.resolve()))
    scores = sorted((score(answers, asked) for answers in every if answers.given), key=lambda item: item.means)
    order = [item.tool for item in scores]
    every.sort(key=lambda answers: order.index(answers.tool) if answers.tool in order else len(order))
    date = datetime.now(UTC).date().isoformat()
    text = page(scores, every, asked, date)
    (REPORTS / "peers.md").write_text(text, encoding="utf-8")
    (REPORTS / "peers.svg").write_bytes(plot(scores))
    body = {"date": date, "answers": [asdict(answers) for answers in every]}
    (REPORTS / "peers.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print(text[: text.index("![")])


if __name__ == "__main__":
    main()
