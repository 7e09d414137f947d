"""Asks the field's estimators and vramplan about the same published measurements: `make peers`.

Writes reports/peers.json, and from it peers.md and peers.svg. The first run makes an environment per tool below
build/peers. `--own` asks vramplan alone and keeps what the others answered.
"""

import argparse
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
ANSWERS = REPORTS / "peers.json"


def main() -> None:
    """Ask, keep the answers, render them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--own", action="store_true", help="ask vramplan alone")
    own = parser.parse_args().own
    asked = rows(WORKING / "models")
    every = [asdict(ask_vramplan(engine, asked)) for engine in ("trace", "analytic")]
    if own:
        every += json.loads(ANSWERS.read_text(encoding="utf-8"))["answers"][len(every) :]
    for tool in () if own else TOOLS:
        print(f"asking {tool.name}", file=sys.stderr)
        every.append(asdict(ask_tool(tool, asked, WORKING.resolve())))
    body = {"date": datetime.now(UTC).date().isoformat(), "answers": every}
    ANSWERS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    text, picture = render_peers()
    (REPORTS / "peers.md").write_text(text, encoding="utf-8")
    (REPORTS / "peers.svg").write_bytes(picture)
    print(text[: text.index("![")])


if __name__ == "__main__":
    main()
