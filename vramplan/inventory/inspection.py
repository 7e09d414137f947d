"""Everything that `vramplan inspect` tells about a model: weights, choices of adapters, paged states, loading."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from vramplan.inventory.choices import Choice, choices
from vramplan.inventory.weights import Inventory, Role, inventory
from vramplan.predict.device_map import DeviceMap, Place
from vramplan.predict.engine import predict_analytic
from vramplan.predict.paging import FullCard, Paging, full_card, paging
from vramplan.predict.placement import consequence, placement
from vramplan.record import SCHEMA
from vramplan.scenario import Load, Method, Scenario


@dataclass(frozen=True)
class Inspection:
    """One scenario's model, looked at from all sides."""

    scenario: Scenario
    inventory: Inventory
    choices: tuple[Choice, ...]
    """Empty for a run without adapters to train."""
    paging: Paging
    full_card: FullCard | None
    """None without a card or budget, or without paged states."""
    placement: DeviceMap | None
    """None without a card or budget, and for models that are not loaded from a checkpoint."""

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: inspection`."""
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": "inspection",
            "scenario": self.scenario.to_mapping(),
            "weights": [_role_json(role) for role in self.inventory.roles],
            "choices": [_choice_json(choice) for choice in self.choices],
            "paging": _paging_json(self.paging),
        }
        if self.full_card is not None:
            body["full_card"] = _full_card_json(self.full_card)
        if self.placement is not None:
            body["device_map_auto"] = _placement_json(self.placement, self.scenario)
        return body


def inspect(
    scenario: Scenario, ranks: Iterable[int], *, budget: int | None = None, reserve: int = 0, host: int | None = None
) -> Inspection:
    """What the scenario's model consists of, and what its choices cost at these ranks.

    `budget` is what the process may hold on the card, by default the card's capacity less `reserve`; `host` is the
    main memory that loading may use, None for enough.
    """
    loads = scenario.load_from is Load.CHECKPOINT and scenario.method is not Method.MERGE
    return Inspection(
        scenario=scenario,
        inventory=inventory(scenario),
        choices=choices(scenario, ranks, budget=budget, reserve=reserve),
        paging=paging(scenario),
        full_card=_full_card(scenario, budget, reserve),
        placement=placement(scenario, budget=budget, reserve=reserve, host=host) if loads else None,
    )


def _full_card(scenario: Scenario, budget: int | None, reserve: int) -> FullCard | None:
    managed = paging(scenario).managed
    if not managed or (budget is None and not scenario.gpu):
        return None
    prediction = predict_analytic(scenario, budget=budget, reserve=reserve)
    verdict = prediction.verdict
    assert verdict is not None
    reserved = prediction.reserved
    if verdict.fits:  # with cached segments given back where PyTorch would otherwise be out of memory
        most = verdict.needed - prediction.context
        reserved = {phase: min(mark, most) for phase, mark in reserved.items()}
    return full_card(reserved, prediction.context, managed, verdict.budget)


def _role_json(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "kind": role.kind.value,
        "shape": list(role.shape),
        "count": role.count,
        "tensors": role.tensors,
        "parameters": role.parameters,
        "quantized": role.quantized,
        "stored": role.stored,
        "bytes": role.bytes,
        "adapted": role.adapted,
        "whole": role.whole,
        "why": role.why,
    }


def _choice_json(choice: Choice) -> dict[str, Any]:
    body = {name: getattr(choice, name) for name in Choice.__slots__ if name not in ("targets", "verdict")}
    body["targets"] = list(choice.targets)
    return body | ({"verdict": choice.verdict.to_json()} if choice.verdict is not None else {})


def _paging_json(found: Paging) -> dict[str, Any]:
    return {
        "optimizer": found.optimizer,
        "pages": found.paged_optimizer,
        "managed": found.managed,
        "on_card": found.on_card,
        "tensors": [
            {**asdict(tensor), "shape": list(tensor.shape), "elements": tensor.numel, "paged": tensor.paged}
            for tensor in found.tensors
        ],
    }


def _full_card_json(found: FullCard) -> dict[str, Any]:
    return {
        "budget": found.budget,
        "managed": found.managed,
        "fits": found.fits,
        "needs_paging": found.needs_paging,
        "moved_per_step": found.moved_per_step,
        "phases": [asdict(phase) for phase in found.phases],
    }


def _placement_json(found: DeviceMap, scenario: Scenario) -> dict[str, Any]:
    body: dict[str, Any] = {
        "whole": found.whole,
        "free": found.free,
        "limit": found.limit,
        "kept_free": found.kept_free,
        "bytes": {place.value: found.bytes[place] for place in Place},
        "modules": {path: place.value for path, place in found.places.items()},
    }
    return body if found.whole else body | {"consequence": consequence(found, scenario)}
