"""The closed form, assembled: what a run holds from the load phase on, as a timeline, a ledger, a prediction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from msgspec import structs

from vramplan.allocator import Program, prepare
from vramplan.architecture import WeightKind
from vramplan.attention import BFLOAT16_SINCE, Choice, Kernel
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.predict.adapters import check_targets, trainables
from vramplan.predict.context import model_warnings
from vramplan.predict.evaluation import evaluation_marks, evaluation_parts
from vramplan.predict.first_step import first_step, two_steps
from vramplan.predict.footprint import footprint
from vramplan.predict.merge import merge_warnings, merged_quant, save_note
from vramplan.predict.overheads import card, kept
from vramplan.predict.quantization import bits, quantized_parameters
from vramplan.predict.resident import Resident, granularity, resident
from vramplan.predict.step import attention_choices, first_products, step_marks, step_parts, step_warnings
from vramplan.predict.stops import stops
from vramplan.record import Device, Parameters, Prediction
from vramplan.scenario import DType, Method, QuantType, Scenario
from vramplan.stacks import Upcast
from vramplan.timeline import Part, Timeline
from vramplan.torch_release import youngest_first
from vramplan.units import human

#: The versions whose code the closed form follows.
LIBRARIES: Mapping[str, str] = {
    "torch": "2.13.0",
    "transformers": "5.17.0",
    "bitsandbytes": "0.50.2",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
}

#: How each component is known; those not named follow from how the libraries work (`modelled`).
BASIS: Mapping[Component, Basis] = {
    Component.WEIGHTS: Basis.EXACT,
    Component.QUANT_STATE: Basis.EXACT,
    Component.UNQUANTIZED: Basis.EXACT,
    Component.ADAPTERS: Basis.EXACT,
    Component.GRADIENTS: Basis.EXACT,
    Component.OPTIMIZER: Basis.EXACT,
}

#: What torch's CUDA allocator rounds every block up to.
CUDA_GRANULARITY = granularity("cuda")


@dataclass(frozen=True)
class Forecast:
    """A run as the closed form sees it."""

    timeline: Timeline
    managed: int
    """Bytes of optimizer states in CUDA managed memory, outside torch's allocator."""
    warnings: tuple[str, ...]
    youngest_first: bool
    """How the allocator of the run's release of PyTorch chooses between free blocks of one size."""
    loaded: tuple[Part, ...] = ()
    """With which parts the timeline begins whatever batch and sequence are, so that they are replayed once for all."""

    def program(self) -> Program:
        """The timeline, ready to be replayed."""
        return prepare(self.timeline.parts[len(self.loaded) :], _begun(self.loaded, self.youngest_first))


@lru_cache(maxsize=16)
def _begun(parts: tuple[Part, ...], youngest: bool) -> Program:
    return prepare(parts, youngest_first=youngest)


def forecast(scenario: Scenario, device: Device) -> Forecast:
    """The run's allocations and frees: load, the first step on a card, and one from the second on."""
    if scenario.method is Method.MERGE:
        from vramplan.predict.merge_run import merge_parts  # a cold start without a merge is not kept waiting

        check_targets(scenario.architecture, scenario.lora)
        merged = Timeline(merge_parts(scenario, device))
        return Forecast(merged, 0, _warnings(scenario, 0, device), youngest_first(scenario.torch))
    before = _resident(scenario, device)
    steps = (*step_parts(scenario, device), *evaluation_parts(scenario, device))
    loaded = before.parts
    if device == "cuda":
        loaded, workspaces = before.parts[: before.loaded], before.parts[before.loaded : before.stateless]
        products = first_products(scenario, device)
        places = [products.get(kind, products.get(kind._replace(biased=False), 0)) for kind in kept(scenario)]
        made = list(zip(places, workspaces, strict=True))
        steps = two_steps(first_step(steps, made, before.parts[before.stateless :]), steps)
    warnings = _warnings(scenario, before.managed, device)
    timeline = Timeline((*loaded, *steps))
    return Forecast(timeline, before.managed, warnings, youngest_first(scenario.torch), loaded)


def ledger(scenario: Scenario, device: Device = "cuda") -> Ledger:
    """The run's high-water marks without the allocator's replay: what sweeps and comparisons of alternatives use."""
    if scenario.method is Method.MERGE:
        return forecast(scenario, device).timeline.ledger(BASIS, granularity=granularity(device))
    before = _resident(scenario, device)
    marks = before.marks.then(step_marks(scenario, device, granularity(device)))
    evaluation = evaluation_marks(scenario, device, granularity(device))
    return (marks if evaluation is None else marks.then(evaluation)).ledger(BASIS)


def _resident(scenario: Scenario, device: Device) -> Resident:
    """What is there before the step, of a scenario that the closed form knows."""
    if scenario.method.adapts:
        check_targets(scenario.architecture, scenario.lora)
    return resident(scenario, device)


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
    entries = tuple(_noted(entry, run, scenario, device) for entry in found.ledger.entries)
    return Prediction(
        engine="analytic",
        device=device,
        scenario=scenario,
        parameters=parameters(scenario),
        bits_per_parameter=bits_per_parameter(scenario),
        ledger=Ledger(entries, found.ledger.steady),
        reserved=found.reserved,
        attention=tuple(choice.kernel.value for choice in attention_choices(scenario, device)),
        libraries=LIBRARIES,
        warnings=run.warnings,
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


def _warnings(scenario: Scenario, managed: int, device: Device) -> tuple[str, ...]:
    choices = attention_choices(scenario, device) if device == "cuda" else ()
    return (*scenario_warnings(scenario, managed, device, choices), *step_warnings(scenario))


def scenario_warnings(scenario: Scenario, managed: int, device: Device, choices: Iterable[Choice]) -> tuple[str, ...]:
    """What to say of the run itself, whichever engine predicts it; `choices` are the kernels that attention takes."""
    own = [*model_warnings(scenario), _experts_warning(scenario), _paged_warning(scenario, managed)]
    if device == "cuda":
        own += stops(scenario)
        own += _attention_warnings(scenario, choices)
    if device == "cuda" and not scenario.gpu:
        own.append("no gpu named: kernels of an A100 are assumed, and the CUDA context is not counted in device")
    if scenario.method is Method.MERGE:
        own += merge_warnings(scenario)
    return tuple(filter(None, own))


def _attention_warnings(scenario: Scenario, choices: Iterable[Choice]) -> list[str]:
    """What to say where a named kernel is refused, or attention ends in the math kernel: why, and what avoids it."""
    return [
        f"{choice.warning}; {_way_out(scenario)}" if choice.kernel is Kernel.MATH else choice.warning
        for choice in choices
        if choice.warning
    ]


def _way_out(scenario: Scenario) -> str:
    """What avoids the math kernel, and what that would save at the peak; each a prediction of the changed scenario."""
    here = ledger(scenario).peak
    savings = {words: here - ledger(changed).peak for words, changed in _fused_ways(scenario)}
    words, saving = max(savings.items(), key=lambda item: item[1])
    if saving > 0:
        return f"{words} takes {human(saving)} less at the peak"
    costs = here - ledger(structs.replace(scenario, attention="sdpa:efficient")).peak
    return f"the matrix takes {human(costs)} of the peak" if costs > 0 else "here it does not decide the peak"


def _fused_ways(scenario: Scenario) -> Iterable[tuple[str, Scenario]]:
    """Changes after which torch may take a fused kernel: 16-bit queries, and where cards know no bfloat16, float16."""
    compute = DType.BFLOAT16 if scenario.compute_dtype is DType.FLOAT32 else scenario.compute_dtype
    autocast = structs.replace(scenario, stack=structs.replace(scenario.stack, autocast=compute.value))
    yield f"autocast (stack.autocast: {compute.value})", autocast
    target = card(scenario)
    if compute is DType.BFLOAT16 and target is not None and target.capability < BFLOAT16_SINCE:
        half = DType.FLOAT16
        stack = structs.replace(autocast.stack, autocast=half.value if scenario.stack.autocast else False)
        dtype = half if scenario.dtype is DType.BFLOAT16 else scenario.dtype
        yield (
            f"float16 (compute_dtype: {half.value})",
            structs.replace(scenario, compute_dtype=half, dtype=dtype, stack=stack),
        )


def _experts_warning(scenario: Scenario) -> str:
    """transformers quantises modules, and a layer's experts are one 3-D parameter."""
    architecture = scenario.architecture
    experts = sum(w.numel * times for w, times in architecture.counted if w.kind is WeightKind.EXPERTS)
    if not experts or scenario.quant.type is QuantType.NONE:
        return ""
    share = quantized_parameters(architecture, scenario.quant) / architecture.numel
    upcast = scenario.method.trains and scenario.stack.upcast is not Upcast.NONE
    stay = human(experts * (4 if upcast else scenario.dtype.bytes))
    dtype = "are even made fp32 by the preparation" if upcast else f"stay {scenario.dtype.value}"
    return (
        f"only {share:.1%} of the parameters are quantised: transformers keeps each layer's experts as 3-D parameters, "
        f"which bitsandbytes does not quantise; they {dtype} ({stay})"
    )


def _paged_warning(scenario: Scenario, managed: int) -> str:
    if not scenario.method.trains or not scenario.optimizer.startswith("paged") or managed:
        return ""
    return (
        "no optimizer state is paged: bitsandbytes pages tensors of at least 100,000 elements, and none is that large"
    )
