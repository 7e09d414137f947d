"""Results made by hand, with round numbers, for the tests of what shows and compares them."""

import os
from dataclasses import replace
from pathlib import Path

from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.record import Fit, Outcome, Parameters, Prediction, Record, Verdict
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import GIB, MIB

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """`text` is the file tests/golden/NAME, or becomes it when UPDATE_GOLDEN is set."""
    file = GOLDEN / name
    if "UPDATE_GOLDEN" in os.environ:
        file.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == file.read_text(encoding="utf-8")


SCENARIO = scenario_from_mapping(
    {"name": "guanaco", "model": "llama-2-7b", "batch": 4, "seq": 512, "grad_accum": 4, "gpu": "rtx3090"}
)
_WEIGHTS = {Component.WEIGHTS: 3 * GIB, Component.QUANT_STATE: 96 * MIB, Component.UNQUANTIZED: GIB}
_STATES = {Component.ADAPTERS: 152 * MIB, Component.OPTIMIZER: 304 * MIB}
_HELD: dict[Phase, dict[Component, int]] = {
    Phase.LOAD: {**_WEIGHTS, Component.ADAPTERS: 152 * MIB},
    Phase.FORWARD: {**_WEIGHTS, **_STATES, Component.ACTIVATIONS: 512 * MIB, Component.WORKSPACE: 90 * MIB},
    Phase.LOSS: {**_WEIGHTS, **_STATES, Component.ACTIVATIONS: 512 * MIB, Component.LOGITS: 750 * MIB},
    Phase.BACKWARD: {
        **_WEIGHTS,
        **_STATES,
        Component.GRADIENTS: 2 * MIB,
        Component.ACTIVATIONS: 1024 * MIB,
        Component.LOGITS: 250 * MIB,
        Component.WORKSPACE: 90 * MIB,
        Component.ALLOCATOR: 3 * MIB,
    },
    Phase.STEP: {**_WEIGHTS, **_STATES, Component.GRADIENTS: 152 * MIB, Component.WORKSPACE: 152 * MIB},
}
_EXACT = {*_WEIGHTS, *_STATES, Component.GRADIENTS}


def ledger(*, context: int = 0, basis: Basis | None = None) -> Ledger:
    """The ledger of a made-up 7B run; everything on one basis when it is given."""
    entries = []
    for phase, held in _HELD.items():
        for component, size in held.items():
            own = Basis.EXACT if component in _EXACT else Basis.MODELLED
            entries.append(Entry(phase, component, size, basis or own))
        if context:
            entries.append(Entry(phase, Component.CONTEXT, context, Basis.CALIBRATED, "recorded on a T4"))
    return Ledger(tuple(entries), steady=sum(_WEIGHTS.values()) + sum(_STATES.values()))


PREDICTION = Prediction(
    engine="analytic",
    device="cuda",
    scenario=SCENARIO,
    parameters=Parameters(total=6_738_415_616, quantized=6_476_005_376, trainable=39_976_960),
    bits_per_parameter=4.127,
    ledger=ledger(context=300 * MIB),
    reserved={phase: 5 * GIB + i * 512 * MIB for i, phase in enumerate(_HELD)},
    libraries={"torch": "2.13.0", "peft": "0.21.2"},
    warnings=("attention runs on the math kernel, which holds the full score matrix: 1.00 GiB",),
    verdict=Verdict(budget=24 * GIB, word=Fit.FITS, margin=17 * GIB - 300 * MIB),
)
NO_FIT = replace(PREDICTION, verdict=Verdict(budget=6 * GIB, word=Fit.NO, margin=-1324 * MIB))
ON_CPU = replace(PREDICTION, device="cpu", reserved={}, ledger=ledger(), verdict=None, warnings=())

#: Measured: weights as predicted, 100 MiB more activations in backward, 4 KiB that nobody explains.
_UNEXPECTED = {(Phase.BACKWARD, Component.ACTIVATIONS): 100 * MIB}
_MEASURED = Ledger(
    (
        *(
            replace(e, bytes=e.bytes + _UNEXPECTED.get((e.phase, e.component), 0), basis=Basis.MEASURED)
            for e in ledger().entries
        ),
        Entry(Phase.STEP, Component.UNKNOWN, 4096, Basis.MEASURED),
    ),
    steady=ledger().steady,
)
RECORD = Record(
    engine="measure",
    device="cpu",
    scenario=SCENARIO,
    parameters=PREDICTION.parameters,
    bits_per_parameter=4.127,
    ledger=_MEASURED,
    libraries={"torch": "2.14.0+cpu", "peft": "0.21.2"},
    outcome=Outcome.OK,
    environment={"device": "cpu", "python": "3.11.7"},
    timings={
        "step_ms": 1180.5,
        "step_ms_min": 1179.2,
        "step_ms_max": 1250.0,
        "steps_ms": [1250.0, 1180.5, 1179.2],
        "tokens_per_second": 6938.6,
        "losses": [6.25, 6.2, 6.1],
    },
)
FAILED = replace(
    RECORD, ledger=Ledger((), 0), outcome=Outcome.TIMEOUT, note="no answer after 60 s", timings={}, warnings=()
)
#: A model of a few MiB, as `measure` runs it on a laptop.
TINY = replace(
    ON_CPU,
    ledger=Ledger(
        tuple(replace(entry, bytes=entry.bytes // 1024) for entry in ON_CPU.ledger.entries),
        steady=ON_CPU.ledger.steady // 1024,
    ),
)
