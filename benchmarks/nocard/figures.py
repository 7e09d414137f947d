"""What emulated records say, and both engines' predictions of the same scenarios beside it."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import vramplan
from benchmarks.nocard.environment import ROOT
from vramplan.ledger import RESIDENT_COMPONENTS, Component
from vramplan.record import Outcome, Prediction, Record, load_result
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios
from vramplan.torch_release import release

ENGINES = ("trace", "analytic")
#: The suite's scenarios name a card of their own, the others the card that they run on.
SUITE, OTHERS = ROOT / "scenarios" / "gpu", ROOT / "scenarios" / "emulated"
Row = Mapping[str, Any]


def measured(records: Path, torch: str) -> list[Row]:
    """One row per record that ended well and had the whole card: the peaks in every phase, by card and scenario."""
    return [row for file in sorted(records.glob("*/*.json")) for row in _measured(file, torch)]


def predicted(rows: Iterable[Row]) -> list[Row]:
    """The rows with what each engine says now, asked by as many processes as there are cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_predicted, rows))


def _measured(file: Path, torch: str) -> Iterator[Row]:
    record = load_result(file)
    if not isinstance(record, Record) or record.outcome is not Outcome.OK or "memory_limit" in record.environment:
        return
    unknown = [entry.bytes for entry in record.ledger.entries if entry.component is Component.UNKNOWN]
    yield {
        "torch": torch,
        "card": file.parent.name,
        "scenario": record.scenario.name,
        "loop": str(record.environment.get("loop", "")),
        "unknown": max(unknown, default=0),
        "static": _static(record),
        "emulated": _peaks(record),
    }


def _predicted(row: Row) -> Row:
    print(f"{row['card']}: {row['scenario']}", file=sys.stderr)
    asked = scenarios()[row["scenario"]]
    scenario = msgspec.structs.replace(asked, gpu=row["card"], torch=release(row["torch"]))
    said = {}
    for engine in ENGINES:
        prediction = vramplan.predict(scenario, engine=engine)
        said[engine] = _peaks(prediction)
        said[f"{engine}_static"] = _static(prediction)
    return {**row, **said}


@cache
def scenarios() -> Mapping[str, Scenario]:
    """What is run on emulated cards, by name."""
    files = [*sorted(SUITE.glob("*.yaml")), *sorted(OTHERS.glob("*.yaml"))]
    return {scenario.name: scenario for file in files for scenario in read_scenarios(file)}


def _peaks(result: Prediction | Record) -> dict[str, dict[str, int]]:
    return {
        phase.value: {"allocated": result.ledger.allocated(phase), "reserved": result.reserved[phase]}
        for phase in result.ledger.phases
    }


def _static(result: Prediction | Record) -> dict[str, int]:
    last = result.ledger.phases[-1]
    return {part.value: result.ledger.bytes(last, part) for part in RESIDENT_COMPONENTS}
