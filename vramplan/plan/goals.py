"""The one setting that goes furthest: the longest sequence, the largest batch, rank or model, the smallest card."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from msgspec.structs import replace

from vramplan.catalog.gpus import gpu, gpu_names
from vramplan.catalog.models import catalog_entries
from vramplan.errors import UsageError, VramplanError
from vramplan.model_source import resolve_model
from vramplan.plan.frontier import SHORTEST, Row, largest_fitting, longest_sequence, row
from vramplan.plan.limit import Probe
from vramplan.predict.gemm_4bit import NEVER_FUSED_ROWS
from vramplan.predict.stops import stops_of_card
from vramplan.scenario import Scenario

LARGEST_BATCH = 2**14
#: An adapter of a higher rank than the hidden size has more parameters than the matrix it adapts.
_HIGHEST_RANK = 2**14


class Goal(StrEnum):
    """What is to be as large as it gets; everything else stays as the target says."""

    MAX_TOKENS = "max-tokens"  # tokens per step: any batch and sequence of the frontier
    MAX_SEQ = "max-seq"  # at the target's batch
    MAX_BATCH = "max-batch"  # at the target's sequence
    MAX_RANK = "max-rank"
    MAX_MODEL = "max-model"  # of the catalogue, by parameters
    CHEAPEST_GPU = "cheapest-gpu"  # the card of the least capacity: no prices are known


def reach(goal: Goal, scenario: Scenario, probe: Probe) -> Row | None:
    """The furthest setting that fits; None when none does. Not for `max-tokens`, which needs the frontier."""
    found = _REACH[goal](scenario, probe)
    if found is None:
        return None
    small = replace(found, batch=1, seq=min(found.seq, SHORTEST), lora=replace(found.lora, rank=1))
    return row(found, small, probe)


def _batch(scenario: Scenario, probe: Probe) -> Scenario | None:
    switches = [NEVER_FUSED_ROWS // replace(scenario, batch=1).tokens]
    return largest_fitting(lambda n: replace(scenario, batch=n), probe, 1, LARGEST_BATCH, switches=switches)


def _rank(scenario: Scenario, probe: Probe) -> Scenario | None:
    if not scenario.method.adapts:
        raise UsageError(f"goal max-rank with method {scenario.method.value}", hint="adapters come with qlora and lora")
    return largest_fitting(lambda n: replace(scenario, lora=replace(scenario.lora, rank=n)), probe, 1, _HIGHEST_RANK)


def _model(scenario: Scenario, probe: Probe) -> Scenario | None:
    """Larger models are tried first; those without the target's modules, or without a closed form, are left out."""
    for entry in sorted(catalog_entries().values(), key=lambda entry: -entry.parameters):
        model = resolve_model(entry.name, base=Path())
        candidate = replace(scenario, model=model, name=f"{entry.name}-{scenario.method.value}")
        try:
            if probe.fits(candidate):
                return candidate
        except VramplanError:
            continue
    return None


def _card(scenario: Scenario, probe: Probe) -> Scenario | None:
    if probe.limit.budget is not None:
        raise UsageError("goal cheapest-gpu with a budget", hint="it compares the cards' own capacities: drop --budget")
    for name in sorted(gpu_names(), key=lambda name: gpu(name).capacity):
        candidate = replace(scenario, gpu=name)
        if not any(stops_of_card(candidate)) and probe.fits(candidate):
            return candidate
    return None


_REACH: Mapping[Goal, Callable[[Scenario, Probe], Scenario | None]] = {
    Goal.MAX_SEQ: longest_sequence,
    Goal.MAX_BATCH: _batch,
    Goal.MAX_RANK: _rank,
    Goal.MAX_MODEL: _model,
    Goal.CHEAPEST_GPU: _card,
}
