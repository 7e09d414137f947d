"""Reports made by hand for the tests of what shows them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from samples import FAILED, ON_CPU, PREDICTION, RECORD, SCENARIO, TINY

from vramplan.check.items import Item
from vramplan.ledger import Basis, Component, Ledger, Phase
from vramplan.record import Device, Fit, Outcome, Prediction, Record, Result, Verdict
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


def judge(scenario: Scenario, budget: int) -> Verdict:
    """The made-up verdict: 7 GiB are needed, and below 7.5 GiB that is not sure."""
    margin = budget - 7 * GIB
    word = Fit.NO if margin < 0 else Fit.TIGHT if margin < GIB // 2 else Fit.FITS
    return Verdict(budget, word, margin)


def report(*results: Prediction | Record, skipped: tuple[str, ...] = ()) -> Report:
    """The report on results as if each was read from a file."""
    items = [Item(result, f"records/{i}.json", Path(f"records/{i}.json")) for i, result in enumerate(results)]
    return make_report(items, closed_form, judge, skipped=skipped)


#: One of everything.
FULL = report(RECORD, ON_CARD, SINGLE, FAILED, TRACED, PREDICTION, skipped=("notes.json is not JSON",))


def on_h200(name: str, *, steps: tuple[float, float, float], context: int = 500 * MIB, **changes: Any) -> Record:
    """ON_CARD on a large card: its step times (median, fastest, slowest), its context, other keys of the scenario."""
    entries = tuple(
        replace(e, bytes=context) if e.component is Component.CONTEXT else e for e in ON_CARD.ledger.entries
    )
    median, fastest, slowest = steps
    return replace(
        ON_CARD,
        scenario=msgspec.structs.replace(ON_CARD.scenario, name=name, gpu="h200", **changes),
        ledger=Ledger(entries, ON_CARD.ledger.steady),
        environment={"device": "cuda", "gpu": "NVIDIA H200", "capacity": 140 * GIB, "used_before": GIB},
        timings={"step_ms": median, "step_ms_min": fastest, "step_ms_max": slowest},
    )


def limited(name: str, limit: int, outcome: Outcome) -> Record:
    """A run whose allocator was limited to `limit` bytes."""
    run = on_h200(name, steps=(400.0, 399.0, 401.0), grad_accum=1)
    return replace(run, environment={**run.environment, "memory_limit": limit}, outcome=outcome)


#: 400 MiB of states in managed memory, 250 MiB of them on the card by what the driver counts.
PAGED = on_h200("paged", steps=(520.0, 510.0, 530.0), context=750 * MIB, optimizer="paged_adamw_8bit")
PAGED = replace(PAGED, environment={**PAGED.environment, "managed": 400 * MIB})
PLAIN = on_h200("plain", steps=(500.0, 499.0, 501.0), optimizer="adamw_8bit")
CARD_DOUBLE = on_h200("7b", steps=(1010.0, 1000.0, 1020.0))
CARD_SINGLE = replace(
    without_double(CARD_DOUBLE, "7b-single"), timings={"step_ms": 1000.0, "step_ms_min": 995.0, "step_ms_max": 1005.0}
)
LONG = on_h200("long", steps=(9000.0, 8990.0, 9010.0), seq=4096)
#: Of every study a row or more. With the context of an H200, the limits are predicted to fit, not to fit, to be tight.
STUDIED = report(
    CARD_SINGLE,
    CARD_DOUBLE,
    PLAIN,
    PAGED,
    LONG,
    limited("above", 8 * GIB, Outcome.OK),
    limited("below", 6 * GIB, Outcome.OOM),
    limited("between", 7 * GIB, Outcome.OOM),
    limited("wrong", 9 * GIB, Outcome.OOM),
    limited("careful", 5 * GIB, Outcome.OK),
)
__all__ = [
    "FULL",
    "ON_CARD",
    "SCENARIO",
    "SINGLE",
    "STUDIED",
    "TINY",
    "TRACED",
    "closed_form",
    "judge",
    "named",
    "report",
]
