"""A shortage held against the prediction of the scenario that was run: which request it was, what would save enough."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from vramplan.advice import Advice
from vramplan.allocator import OutOfMemory, replay
from vramplan.allocator.rules import block_size
from vramplan.api import foresee
from vramplan.ledger import Component, Phase
from vramplan.oom.aim import Aim
from vramplan.oom.printed import Printed
from vramplan.oom.savings import Saving, lists, savings
from vramplan.oom.shortage import Shortage
from vramplan.plan.limit import Limit
from vramplan.predict.forecast import ledger
from vramplan.predict.overheads import context_of
from vramplan.predict.replayable import replayable
from vramplan.scenario import Scenario
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
    candidates: tuple[Candidate, ...]
    """Allocations of that size, those of the same phase first."""
    tokens: Tokens | None
    """When the request is for logits, of more tokens than the scenario's."""
    ran: Scenario
    """The scenario as it ran: with samples as long as the failed request tells, where it tells; what follows is of
    it."""
    held: int
    """Bytes on the card that its prediction needs in all, context included."""
    budget: int
    """What the process could have held, context included."""
    needed: int
    """Bytes to save: what was lacking, or what the predicted peak has more than the allocator could have."""
    savings: tuple[Saving, ...]
    """Single changes, those that save enough first, in the order of their cost to the training."""
    advice: tuple[Advice, ...]
    """Lists of changes after which the run should fit, the recommended one first."""

    @property
    def expected_to_fit(self) -> bool:
        """Whether the run as it ran is expected to fit: it held more than is predicted."""
        return self.fails_at is None and self.ran == self.scenario

    @property
    def solvable(self) -> bool:
        """Whether some change, or list of changes, saves enough."""
        return bool(self.advice) or any(saving.enough for saving in self.savings)

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
            "candidates": [
                {
                    "phase": found.phase.value,
                    "component": found.component.value,
                    "label": found.label,
                    "bytes": found.bytes,
                    "times": found.times,
                }
                for found in self.candidates
            ],
            "tokens": {"seen": self.tokens.seen, "planned": self.tokens.planned} if self.tokens else None,
            "ran": self.ran.to_mapping(),
            "needed": self.needed,
            "savings": [
                {name: getattr(saving, name) for name in ("name", "label", "saves", "enough", "cost")}
                for saving in self.savings
            ],
            "advice": [
                {
                    "keeps_training": advice.keeps_training,
                    "changes": [
                        {"name": step.change.name, "label": step.label, "saves": step.saves, "total": step.total}
                        for step in advice.steps
                    ],
                    "scenario": advice.scenario.to_mapping(),
                }
                for advice in self.advice
            ],
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


def against(scenario: Scenario, shortage: Shortage, phase: Phase | None, component: Component | None = None) -> Against:
    """The scenario's prediction beside a shortage that a stack places in `phase`, for `component`; None where unknown.

    Raises a UsageError for a scenario that cannot be predicted.
    """
    prediction, timeline = foresee(scenario)
    budget = shortage.room + context_of(scenario)
    where = phase if phase in prediction.ledger.phases else prediction.ledger.peak_phase
    tokens = _tokens(scenario, shortage.requested, where, component)
    ran = _as_it_ran(scenario, tokens)
    fails_at = _failure(scenario, timeline, shortage.room)
    seen, whole, failed = prediction, timeline, fails_at
    if ran is not scenario:
        seen, whole = foresee(ran)
        failed = _failure(ran, whole, shortage.room)
    held = seen.peak_on_device
    needed = max(shortage.lacking, seen.ledger.peak - shortage.room)
    limit = Limit(max(min(budget, held - shortage.lacking), 1))
    aim = Aim(limit, most=ledger(ran).peak - needed)
    return Against(
        scenario=scenario,
        predicted_phase=where,
        predicted=prediction.ledger.allocated(where),
        observed=(shortage.allocated + shortage.requested).bytes,
        fails_at=fails_at,
        fits_expandable=_fits_expandable(ran, whole, shortage.room, failed),
        candidates=candidates(timeline.parts, shortage.requested, where),
        tokens=tokens,
        ran=ran,
        held=held,
        budget=budget,
        needed=needed,
        savings=tuple(savings(ran, aim)),
        advice=lists(ran, aim),
    )


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
