"""Runs scenarios on emulated cards, and both engines on the same scenarios: `make emulated`.

Writes reports/emulated.json, and from it emulated.md. Records are kept below build/nocard, and a run that has one is
skipped: an interrupted run goes on. With files of scenarios/emulated or scenarios/gpu only those are run. Other rows
stay, and so do those of other versions: `--torch 2.11.0` takes another than the pinned one. `--again` runs nothing and
asks the engines about what emulated.json holds, which needs no CUDA build.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.accuracy import REPORTS
from benchmarks.nocard.checkpoint import write_checkpoint
from benchmarks.nocard.environment import WORKING, Environment, prepared
from benchmarks.nocard.figures import OTHERS, Row, measured, predicted
from benchmarks.nocard.render import render
from vramplan.predict.engine import LIBRARIES
from vramplan.scenario import Load, Scenario
from vramplan.scenario_file import read_scenarios

#: The suite's card, and the chunks of its order.
SUITE, CHUNKS = "h200", range(1, 7)
FIGURES = REPORTS / "emulated.json"


def main() -> None:
    """Run what has no record yet, compare, render."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nocard", description=__doc__)
    parser.add_argument(
        "files", nargs="*", type=Path, help="only these of scenarios/emulated or scenarios/gpu; other rows are kept"
    )
    parser.add_argument("--torch", default=LIBRARIES["torch"], help="version of PyTorch's CUDA build")
    parser.add_argument("--again", action="store_true", help="only ask the engines again about what was run before")
    parser.add_argument("--render", action="store_true", help="only render what was kept")
    args = parser.parse_args()
    if args.again:
        _write(predicted(_kept()["rows"]))
    elif not args.render:
        fresh = _measured(args.torch, args.files or sorted(OTHERS.glob("*.yaml")), suite=not args.files)
        known = {_run(row) for row in fresh}
        _write([*(row for row in _kept()["rows"] if _run(row) not in known), *predicted(fresh)])
    text = render(_kept())
    (REPORTS / "emulated.md").write_text(text, encoding="utf-8")
    print(text)


def _kept() -> Mapping[str, Any]:
    kept: Mapping[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return kept


def _run(row: Row) -> tuple[str, str, str]:
    """What was run, on what."""
    return row["torch"], row["card"], row["scenario"]


def _write(rows: Iterable[Row]) -> None:
    body = {"date": datetime.now(UTC).date().isoformat(), "rows": sorted(rows, key=_run)}
    FIGURES.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def _measured(torch: str, files: Iterable[Path], *, suite: bool = False) -> list[Row]:
    """What the scenarios of the files take, and those of the GPU suite if it is asked for."""
    environment, records = prepared(torch), WORKING / "records" / torch
    for chunk in CHUNKS if suite else ():
        chosen = ("suite", "scenarios/gpu", "--chunk", str(chunk), "--device", "cuda")
        environment.run(SUITE, *chosen, "--out", str(records / SUITE))
    for scenario in (scenario for file in files for scenario in read_scenarios(file)):
        _measure(scenario, environment, records)
    return measured(records, torch)


def _measure(scenario: Scenario, environment: Environment, records: Path) -> None:
    """Write the scenario's record, if there is none, below the name of its card."""
    card = scenario.gpu or SUITE
    file = records / card / f"{scenario.name}.json"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    asked = file.with_suffix(".yaml")
    asked.write_text(json.dumps(_mapping(scenario)), encoding="utf-8")
    print(f"{card}: {scenario.name}", file=sys.stderr)
    command = ("measure", str(asked), "--device", "cuda", "--steps", "1", "--out", str(file))
    environment.run(card, *command, padded=scenario.padding)


def _mapping(scenario: Scenario) -> dict[str, Any]:
    """The scenario as a file says it; a checkpoint that it is to be loaded from is made, once for every model."""
    asked = scenario.to_mapping()
    if scenario.load_from is not Load.CHECKPOINT:
        return asked
    folder = WORKING / "checkpoints" / scenario.model.name
    if not folder.exists():
        write_checkpoint(scenario, folder)
    return {**asked, "model": str(folder)}


if __name__ == "__main__":
    main()
