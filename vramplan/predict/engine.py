"""The closed form's prediction: its ledger, what is reserved, the verdict, and what a reader should know."""

from collections.abc import Mapping
from dataclasses import replace

from vramplan.ledger import Component, Entry, Ledger, Phase
from vramplan.predict.adapters import trainables
from vramplan.predict.footprint import footprint
from vramplan.predict.forecast import BASIS, Forecast, forecast
from vramplan.predict.merge import merged_quant, save_note
from vramplan.predict.quantization import bits, quantized_parameters
from vramplan.predict.step import attention_choices, step_warnings
from vramplan.predict.warnings import scenario_warnings
from vramplan.record import Device, Parameters, Prediction
from vramplan.scenario import QuantType, Scenario
from vramplan.units import human

#: The versions whose code the closed form follows; of PyTorch's, what a card's allocator does goes by the scenario's.
LIBRARIES: Mapping[str, str] = {
    "torch": "2.13.0",
    "transformers": "5.17.0",
    "bitsandbytes": "0.50.2",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
}


def predict_analytic(
    scenario: Scenario, *, device: Device = "cuda", budget: int | None = None, reserve: int = 0
) -> Prediction:
    """What `scenario` needs on `device`.

    On cuda the timeline is replayed through the caching allocator, so that allocated counts whole blocks and reserved
    whole segments. The verdict is against `budget`, or the card's capacity less `reserve`; else there is none.
    """
    return conclude(scenario, device, forecast(scenario, device), budget=budget, reserve=reserve)


def conclude(
    scenario: Scenario, device: Device, run: Forecast, *, budget: int | None = None, reserve: int = 0
) -> Prediction:
    """The prediction that a forecast amounts to."""
    found = footprint(
        scenario, device, run.timeline, run.program, BASIS, engine="analytic", budget=budget, reserve=reserve
    )
    choices = attention_choices(scenario, device)
    entries = tuple(_noted(entry, run, scenario, device) for entry in found.ledger.entries)
    return Prediction(
        engine="analytic",
        device=device,
        scenario=scenario,
        parameters=parameters(scenario),
        bits_per_parameter=bits_per_parameter(scenario),
        ledger=Ledger(entries, found.ledger.steady),
        reserved=found.reserved,
        attention=tuple(choice.kernel.value for choice in choices),
        libraries=LIBRARIES,
        warnings=(*scenario_warnings(scenario, run.managed, device, choices), *step_warnings(scenario, device)),
        verdict=found.verdict,
    )


def parameters(scenario: Scenario) -> Parameters:
    """How many parameters the model has, and how many of them are quantised and trained."""
    return Parameters(
        total=scenario.architecture.numel,
        quantized=quantized_parameters(scenario.architecture, merged_quant(scenario)),
        trainable=sum(tensor.numel * tensor.times for tensor in trainables(scenario)),
    )


def bits_per_parameter(scenario: Scenario) -> float:
    """Bits that a parameter of the linear layers costs: packed weight and block constants, or its dtype unquantised."""
    if merged_quant(scenario).type is QuantType.NONE:
        return 8.0 * scenario.dtype.bytes
    return bits(scenario.architecture, scenario.quant).per_parameter


def _noted(entry: Entry, run: Forecast, scenario: Scenario, device: Device) -> Entry:
    if entry.phase is Phase.SAVE and entry.component is Component.WEIGHTS:
        return replace(entry, note=save_note(scenario, device))
    if entry.component is Component.OPTIMIZER and run.managed:
        note = f"{human(run.managed)} more in managed memory (paged states), outside the allocator"
        return replace(entry, note=note)
    return entry
