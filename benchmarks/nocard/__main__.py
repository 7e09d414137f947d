"""Runs scenarios on emulated cards, and both engines on the same scenarios: `make emulated`.

Writes reports/emulated.json, and from it emulated.md. Records are kept below build/nocard, and a run that has one is
skipped: an interrupted run goes on. `--torch 2.11.0` takes another version than the pinned one. `--again` runs nothing
and asks the engines about what emulated.json holds, which needs no CUDA build.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.accuracy import REPORTS
from benchmarks.nocard.environment import WORKING, Environment, prepared
from benchmarks.nocard.figures import OTHERS, Row, measured, predicted
from benchmarks.nocard.render import render
from vramplan.predict.engine import LIBRARIES
from vramplan.scenario_file import read_scenarios

#: The suite's card, and the chunks of its order.
SUITE, CHUNKS = "h200", range(1, 7)
FIGURES = REPORTS / "emulated.json"


def main() -> None:
    """Run what has no record yet, compare, render."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nocard", description=__doc__)
    parser.add_argument("--torch", default=LIBRARIES["torch"], help="version of PyTorch's CUDA build")
    parser.add_argument("--again", action="store_true", help="only ask the engines again about what was run before")
    parser.add_argument("--render", action="store_true", help="only render what was kept")
    args = parser.parse_args()
    if args.again:
        kept = json.loads(FIGURES.read_text(encoding="utf-8"))
        _write(kept["torch"], kept["rows"])
    elif not args.render:
        _measure(prepared(args.torch), records := WORKING / "records" / args.torch)
        _write(args.torch, measured(records))
    text = render(json.loads(FIGURES.read_text(encoding="utf-8")))
    (REPORTS / "emulated.md").write_text(text, encoding="utf-8")
    print(text)


def _write(torch: str, rows: list[Row]) -> None:
    body = {"date": datetime.now(UTC).date().isoformat(), "torch": torch, "rows": predicted(rows)}
    FIGURES.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _measure(environment: Environment, records: Path) -> None:
    for chunk in CHUNKS:
        chosen = ("suite", "scenarios/gpu", "--chunk", str(chunk), "--device", "cuda")
        environment.run(SUITE, *chosen, "--out", str(records / SUITE))
    for scenario in (scenario for file in sorted(OTHERS.glob("*.yaml")) for scenario in read_scenarios(file)):
        file = records / scenario.gpu / f"{scenario.name}.json"
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        asked = file.with_suffix(".yaml")
        asked.write_text(json.dumps(scenario.to_mapping()), encoding="utf-8")
        print(f"{scenario.gpu}: {scenario.name}", file=sys.stderr)
        command = ("measure", str(asked), "--device", "cuda", "--out", str(file))
        environment.run(scenario.gpu, *command, padded=scenario.padding)


if __name__ == "__main__":
    main()
