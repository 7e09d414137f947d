"""The closed form, assembled: what a run holds from the load phase on, as a timeline and as a ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from vramplan.allocator import Program, Rules, prepare
from vramplan.ledger import Basis, Component, Ledger
from vramplan.predict.adapters import check_targets
from vramplan.predict.evaluation import evaluation_marks, evaluation_parts
from vramplan.predict.first_step import first_step, two_steps
from vramplan.predict.overheads import kept_by_steps
from vramplan.predict.replayable import allocator_rules
from vramplan.predict.resident import Resident, granularity, resident
from vramplan.predict.saved_modules import check_saved
from vramplan.predict.step import clipped, first_products, step_marks, step_parts
from vramplan.record import Device
from vramplan.scenario import Method, Scenario
from vramplan.timeline import Part, Timeline

#: How each component is known; those not named follow from how the libraries work (`modelled`).
BASIS: Mapping[Component, Basis] = {
    Component.WEIGHTS: Basis.EXACT,
    Component.QUANT_STATE: Basis.EXACT,
    Component.UNQUANTIZED: Basis.EXACT,
    Component.ADAPTERS: Basis.EXACT,
    Component.GRADIENTS: Basis.EXACT,
    Component.OPTIMIZER: Basis.EXACT,
}


@dataclass(frozen=True)
class Forecast:
    """A run as the closed form sees it."""

    timeline: Timeline
    managed: int
    """Bytes of optimizer states in CUDA managed memory, outside torch's allocator."""
    rules: Rules
    """How the run's allocator behaves."""
    loaded: tuple[Part, ...] = ()
    """With which parts the timeline begins whatever batch and sequence are, so that they are replayed once for all."""

    def program(self) -> Program:
        """The timeline, ready to be replayed."""
        return prepare(self.timeline.parts[len(self.loaded) :], _begun(self.loaded, self.rules))


@lru_cache(maxsize=16)
def _begun(parts: tuple[Part, ...], rules: Rules) -> Program:
    return prepare(parts, rules=rules)


def forecast(scenario: Scenario, device: Device) -> Forecast:
    """The run's allocations and frees: load, the first step on a card, and one from the second on."""
    if scenario.method is Method.MERGE:
        from vramplan.predict.merge_run import merge_parts  # a cold start without a merge is not kept waiting

        check_targets(scenario.architecture, scenario.lora)
        check_saved(scenario)
        merged = Timeline(merge_parts(scenario, device))
        return Forecast(merged, 0, allocator_rules(scenario))
    before = _resident(scenario, device)
    steps = (*step_parts(scenario, device), *evaluation_parts(scenario, device))
    loaded = before.parts
    if device == "cuda":
        loaded, workspaces = before.parts[: before.loaded], before.parts[before.loaded : before.stateless]
        products = first_products(scenario, device)
        places = [products.get(kind, products.get(kind._replace(biased=False), 0)) for kind in kept_by_steps(scenario)]
        made = list(zip(places, workspaces, strict=True))
        first = first_step(steps, made, before.parts[before.stateless :], clipped(scenario, device))
        steps = two_steps(first, steps)
    timeline = Timeline((*loaded, *steps))
    return Forecast(timeline, before.managed, allocator_rules(scenario), loaded)


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
        check_saved(scenario)
    return resident(scenario, device)
