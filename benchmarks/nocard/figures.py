"""What a directory of emulated records says, beside both engines' predictions of the same scenarios."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

import vramplan
from vramplan.ledger import Component
from vramplan.record import Outcome, Prediction, Record, load_result

ENGINES = ("trace", "analytic")


def figures(records: Path) -> list[dict[str, Any]]:
    """One row per record that ended well and had the whole card: the peaks in every phase, and each engine's."""
    return [row for file in sorted(records.glob("*/*.json")) for row in _row(file)]


def _row(file: Path) -> Iterator[dict[str, Any]]:
    record = load_result(file)
    card = file.parent.name
    if not isinstance(record, Record) or record.outcome is not Outcome.OK or "memory_limit" in record.environment:
        return
    print(f"{card}: {record.scenario.name}", file=sys.stderr)
    scenario = msgspec.structs.replace(record.scenario, gpu=card)
    unknown = [entry.bytes for entry in record.ledger.entries if entry.component is Component.UNKNOWN]
    row = {
        "card": card,
        "scenario": record.scenario.name,
        "loop": str(record.environment.get("loop", "")),
        "unknown": max(unknown, default=0),
        "static": _static(record),
        "emulated": _peaks(record),
    }
    for engine in ENGINES:
        predicted = vramplan.predict(scenario, engine=engine)
        row[engine] = _peaks(predicted)
        row[f"{engine}_static"] = _static(predicted)
    yield row


def _peaks(result: Prediction | Record) -> dict[str, dict[str, int]]:
    return {
        phase.value: {"allocated": result.ledger.allocated(phase), "reserved": result.reserved[phase]}
        for phase in result.ledger.phases
    }


#: Known to the byte.
_STATIC = (Component.WEIGHTS, Component.QUANT_STATE, Component.UNQUANTIZED, Component.ADAPTERS, Component.OPTIMIZER)


def _static(result: Prediction | Record) -> dict[str, int]:
    last = result.ledger.phases[-1]
    return {part.value: result.ledger.bytes(last, part) for part in _STATIC}
