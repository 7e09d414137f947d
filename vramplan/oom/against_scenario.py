"""A shortage held against the prediction of the scenario that was run: which request it was, what would save enough."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from vramplan.allocator import OutOfMemory, replay
from vramplan.allocator.rules import block_size
from vramplan.api import foresee
from vramplan.ledger import Component, Phase
from vramplan.oom.aim import Aim
from vramplan.oom.frames import UNKNOWN
from vramplan.oom.loading import LoadingAim, OtherLoading, other_loading
from vramplan.oom.printed import Printed
from vramplan.oom.savings import Saving, lists, savings
from vramplan.oom.shortage import Shortage
from vramplan.oom.stack_rules import Moment, Purpose
from vramplan.plan.advice import Advice
from vramplan.plan.limit import Limit
from vramplan.predict.forecast import ledger
from vramplan.predict.overheads import context_of
from vramplan.predict.replayable import replayable
from vramplan.record import Prediction
from vramplan.scenario import Scenario
from vramplan.stacks import LossKernel
from vramplan.timeline import Alloc, Enter, Part, Repeat, Timeline


@dataclass(frozen=True, slots=True)
class Candidate:
    """An allocation of the predicted run that is as large as the failed request."""

    phase: Phase
    component: Component
    label: str
    bytes: int
    times: int
    """How often the run makes it in that phase."""

    def to_json(self) -> dict[str, Any]:
        """The element of the answer's `candidates`."""
        return {
            "phase": self.phase.value,
            "component": self.component.value,
            "label": self.label,
            "bytes": self.bytes,
            "times": self.times,
        }


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many tokens' logits the failed request is, nearly, and how many the scenario has."""

    seen: int
    planned: int
    dtype: str


@dataclass(frozen=True)
class Against:
    """What the scenario's prediction says about a shortage."""

    scenario: Scenario
    predicted_phase: Phase
    """The phase that the figures are of: the one where memory ran out, else that of the peak."""
    predicted: int
    """Bytes allocated at that phase's high-water mark."""
    observed: int
    """Bytes that were allocated, with the failed request."""
    fails_at: OutOfMemory | None
    """The request that the prediction expects to fail in the same room; None when it expects the run to fit."""
    fits_expandable: bool | None
    """Whether the run as it ran goes through in that room with expandable segments, by replay; None where it is
    expected to without them."""
    replayed: bool | None
    """`fits_expandable` where it tells of the failure that was seen too: None where only one of that and the predicted
    failure is in loading."""
    candidates: tuple[Candidate, ...]
    """Allocations of that size, those of the same phase first."""
    tokens: Tokens | None
    """When the request is for logits, of more tokens than the scenario's."""
    whole_logits: bool
    """Whether the stack shows the loss of all logits at once, which the scenario does not have."""
    ran: Scenario
    """The scenario as it ran: with the loss that the stack shows, and samples as long as the failed request tells; what
    follows is of it."""
    held: int
    """Bytes on the card that its prediction needs in all, context included."""
    budget: int
    """What the process could have held, context included."""
    loading: bool
    """Whether it failed while the model was loaded: then what follows is of loading alone."""
    other_loading: OtherLoading | None
    """Where that shows that the model was not loaded as the scenario says; no change is asked for then."""
    needed: int
    """Bytes to save: what was lacking, or what the predicted peak has more than the allocator could have."""
    savings: tuple[Saving, ...]
    """Single changes, those that save enough first, in the order of their cost to the training."""
    advice: tuple[Advice, ...]
    """Lists of changes after which the run should fit, the recommended one first."""

    @property
    def held_more(self) -> bool:
        """Whether the run held more than is predicted, and is expected to fit with what is."""
        return self.fails_at is None and self.ran == self.scenario and self.observed > self.predicted

    @property
    def solvable(self) -> bool:
        """Whether some change, or list of changes, saves enough, or loading as the scenario says does."""
        loaded_otherwise = self.other_loading is not None
        return loaded_otherwise or bool(self.advice) or any(saving.enough for saving in self.savings)

    def to_json(self) -> dict[str, Any]:
        """The `scenario` object of the answer."""
        return {
            "scenario": self.scenario.to_mapping(),
            "phase": self.predicted_phase.value,
            "predicted_allocated": self.predicted,
            "observed_allocated": self.observed,
            "predicted_device": self.held,
            "budget": self.budget,
            "predicted_failure": _failure_json(self.fails_at),
            "fits_expandable": self.fits_expandable,
            "candidates": [found.to_json() for found in self.candidates],
            "tokens": {"seen": self.tokens.seen, "planned": self.tokens.planned} if self.tokens else None,
            "whole_logits": self.whole_logits,
            "ran": self.ran.to_mapping(),
            "other_loading": self.other_loading.to_json() if self.other_loading else None,
            "needed": self.needed,
            "savings": [saving.to_json() for saving in self.savings],
            "advice": [advice.to_json() for advice in self.advice],
        }


def _failure_json(failure: OutOfMemory | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "phase": failure.phase.value,
        "component": failure.component.value,
        "label": failure.label,
        "bytes": failure.requested,
        "allocated": failure.allocated,
        "reserved": failure.reserved,
    }


def against(given: Scenario, shortage: Shortage, moment: Moment, purpose: Purpose = UNKNOWN) -> Against:
    """The prediction of the given scenario beside a shortage that a stack places in a moment, for a purpose.

    Raises a UsageError for a scenario that cannot be predicted.
    """
    phase, scenario = moment.phase, _with_the_loss_of(moment, given)
    planned = prediction, timeline, fails_at = _in_room(scenario, shortage.room)
    where = phase if phase in prediction.ledger.phases else prediction.ledger.peak_phase
    tokens = _tokens(scenario, shortage.requested, where, purpose.component)
    ran = _as_it_ran(scenario, tokens)
    seen, whole, failed = planned if ran is scenario else _in_room(ran, shortage.room)
    fits_expandable = _fits_expandable(ran, whole, shortage.room, failed)
    told = scenario.expandable_segments or failed is None or _same_stretch(failed.phase, phase)
    observed = shortage.allocated + shortage.requested
    loading = phase is Phase.LOAD
    other = other_loading(prediction, observed, purpose) if loading else None
    aim = _aim(seen, shortage, loading=loading)
    return Against(
        scenario=given,
        whole_logits=scenario != given,
        predicted_phase=where,
        predicted=prediction.ledger.allocated(where),
        observed=observed.bytes,
        fails_at=fails_at,
        fits_expandable=fits_expandable,
        replayed=fits_expandable if told else None,
        candidates=candidates(timeline.parts, shortage.requested, where),
        tokens=tokens,
        ran=ran,
        held=seen.peak_on_device,
        budget=shortage.room + context_of(scenario),
        loading=loading,
        other_loading=other,
        needed=aim.allocated(ran) - aim.most,
        savings=() if other else tuple(savings(ran, aim)),
        advice=() if other else lists(ran, aim),
    )


def _with_the_loss_of(moment: Moment, scenario: Scenario) -> Scenario:
    """The scenario with the loss of all logits at once where the stack shows that one instead of a fused one."""
    if moment.whole_logits and scenario.stack.loss in (LossKernel.LIGER, LossKernel.CHUNKED):
        return replace(scenario, stack=replace(scenario.stack, loss=LossKernel.TORCH))
    return scenario


def _in_room(scenario: Scenario, room: int) -> tuple[Prediction, Timeline, OutOfMemory | None]:
    """The prediction, the timeline behind it, and the request that fails in that room, by replay."""
    prediction, timeline = foresee(scenario)
    return prediction, timeline, _failure(scenario, timeline, room)


def _same_stretch(predicted: Phase, seen: Phase | None) -> bool:
    """Whether both failures may be one: both in loading, or both after it."""
    return seen is None or (predicted is Phase.LOAD) is (seen is Phase.LOAD)


def _aim(seen: Prediction, shortage: Shortage, *, loading: bool) -> Aim:
    """What a changed run has to come to: what was lacking saved, of loading alone where that failed."""
    allocated = seen.ledger.allocated(Phase.LOAD) if loading else seen.ledger.peak
    reserved = seen.reserved[Phase.LOAD] if loading else seen.peak_reserved
    needed = max(shortage.lacking, allocated - shortage.room)
    context = context_of(seen.scenario)
    limit = Limit(max(min(shortage.room, reserved - shortage.lacking) + context, 1))
    now = ledger(seen.scenario)
    if loading:
        return LoadingAim(limit, most=now.allocated(Phase.LOAD) - needed)
    return Aim(limit, most=now.peak - needed)


def _failure(scenario: Scenario, timeline: Timeline, room: int) -> OutOfMemory | None:
    """The request that fails in that room, by replay."""
    return replay(replayable(scenario, timeline), budget=room).oom


def _fits_expandable(scenario: Scenario, timeline: Timeline, room: int, failed: OutOfMemory | None) -> bool | None:
    """Whether expandable segments alone let the run go through; None where it does without. Not where it had them."""
    if scenario.expandable_segments:
        return False
    if failed is None:
        return None
    return _failure(replace(scenario, expandable_segments=True), timeline, room) is None


def _as_it_ran(scenario: Scenario, tokens: Tokens | None) -> Scenario:
    """The scenario with samples as long as the failed request tells; itself where it tells of none."""
    if tokens is None or tokens.seen % scenario.sequences:
        return scenario
    return replace(scenario, seq=tokens.seen // scenario.sequences)


def candidates(parts: Iterable[Part], requested: Printed, phase: Phase) -> tuple[Candidate, ...]:
    """The timeline's allocations of that size, those in `phase` first; alike ones together."""
    found: dict[tuple[Phase, Component, str, int], int] = {}
    for where, alloc, times in _allocations(tuple(parts), Phase.LOAD, 1):
        if requested.covers(alloc.bytes) or requested.covers(block_size(alloc.bytes)):
            key = (where, alloc.component, alloc.label, alloc.bytes)
            found[key] = found.get(key, 0) + times
    every = (Candidate(*key, times=times) for key, times in found.items())
    return tuple(sorted(every, key=lambda one: one.phase is not phase))


def _allocations(parts: tuple[Part, ...], phase: Phase, times: int) -> Generator[tuple[Phase, Alloc, int], None, Phase]:
    """Each allocation once, with its phase and how often repeats make it; the phase that the last part leaves."""
    for part in parts:
        if isinstance(part, Enter):
            phase = part.phase
        elif isinstance(part, Alloc):
            yield phase, part, times
        elif isinstance(part, Repeat):
            phase = yield from _allocations(part.body, phase, times * part.times)
    return phase


def _tokens(scenario: Scenario, requested: Printed, phase: Phase, component: Component | None) -> Tokens | None:
    """The number of tokens, larger than the scenario's, whose logits in fp32 or 16 bits have the size of the request.

    Only asked where the stack says that it was for logits: any size is some number of tokens.
    """
    if component is not Component.LOGITS or phase not in (Phase.LOSS, Phase.BACKWARD):
        return None
    row = scenario.architecture.vocab
    elements = {"fp32": 4, scenario.compute_dtype.value: scenario.compute_dtype.bytes}
    possible = {
        dtype: range(-(-requested.low // (row * element)), requested.high // (row * element) + 1)
        for dtype, element in elements.items()
    }
    if any(scenario.tokens in counts for counts in possible.values()):
        return None
    for dtype, counts in possible.items():
        if counts and counts[-1] > scenario.tokens:
            # Of the numbers that print alike, the one with the most factors of two: batches are padded to such.
            return Tokens(max(counts, key=lambda n: n & -n), scenario.tokens, dtype)
    return None
