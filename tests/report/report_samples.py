"""Reports made by hand for the tests of what shows them."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
from samples import FAILED, ON_CPU, PREDICTION, RECORD, SCENARIO, TINY

from vramplan.check.items import Item
from vramplan.ledger import Basis, Component, Ledger, Phase
from vramplan.record import Device, Prediction, Record, Result
from vramplan.report.report_facts import Report
from vramplan.report.report_reading import make_report
from vramplan.scenario import Scenario
from vramplan.units import GIB, MIB

R = TypeVar("R", bound=Result)


def named(result: R, name: str) -> R:
    """The same result under another name."""
    return replace(result, scenario=msgspec.structs.replace(result.scenario, name=name))


def without_double(result: R, name: str) -> R:
    """The same run without double quantisation: 290 MiB more of constants in every phase."""
    quant = msgspec.structs.replace(result.scenario.quant, double=False)
    entries = tuple(
        replace(e, bytes=e.bytes + 290 * MIB) if e.component is Component.QUANT_STATE else e
        for e in result.ledger.entries
    )
    return replace(
        result,
        scenario=msgspec.structs.replace(result.scenario, name=name, quant=quant),
        bits_per_parameter=4.5,
        ledger=Ledger(entries, result.ledger.steady + 290 * MIB),
    )


#: On a card: 100 MiB more activations in backward than predicted, and 256 MiB more reserved at the end.
ON_CARD = replace(
    named(RECORD, "guanaco-card"),
    device="cuda",
    ledger=Ledger(
        tuple(
            replace(e, basis=Basis.MEASURED, bytes=e.bytes + (100 * MIB if _more else 0))
            for e in PREDICTION.ledger.entries
            for _more in [(e.phase, e.component) == (Phase.BACKWARD, Component.ACTIVATIONS)]
        ),
        PREDICTION.ledger.steady,
    ),
    reserved={**PREDICTION.reserved, Phase.STEP: PREDICTION.reserved[Phase.STEP] + 256 * MIB},
    environment={"device": "cuda", "gpu": "NVIDIA GeForce RTX 3090", "driver": "560.35", "capacity": 24 * GIB},
)
TRACED = replace(named(ON_CPU, "another name"), engine="trace")
SINGLE = without_double(RECORD, "guanaco-single")


def closed_form(scenario: Scenario, device: Device) -> Prediction:
    """The made-up prediction for every made-up scenario."""
    if scenario.quant.double:
        return replace(PREDICTION if device == "cuda" else ON_CPU, scenario=scenario)
    return replace(without_double(ON_CPU, scenario.name), scenario=scenario)


def report(*results: Prediction | Record, skipped: tuple[str, ...] = ()) -> Report:
    """The report on results as if each was read from a file."""
    items = [Item(result, f"records/{i}.json", Path(f"records/{i}.json")) for i, result in enumerate(results)]
    return make_report(items, closed_form, skipped=skipped)


#: One of everything.
FULL = report(RECORD, ON_CARD, SINGLE, FAILED, TRACED, PREDICTION, skipped=("notes.json is not JSON",))
__all__ = ["FULL", "ON_CARD", "SCENARIO", "SINGLE", "TINY", "TRACED", "closed_form", "named", "report"]
