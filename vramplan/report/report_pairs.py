"""Runs that differ in one thing alone: double quantisation, or whether the optimizer's states are paged."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from vramplan.compare import Pair
from vramplan.ledger import Component, Phase
from vramplan.optimizers import unpaged
from vramplan.record import Prediction, Record, Result
from vramplan.report.report_case import Case, place, question


@dataclass(frozen=True, slots=True)
class Steps:
    """Milliseconds that the timed steps of a record took."""

    median: float
    fastest: float
    slowest: float


@dataclass(frozen=True, slots=True)
class Times:
    """The step times of both sides of a pair."""

    reference: Steps
    other: Steps

    @property
    def slower(self) -> float:
        """By what share of the reference's median step the other's takes longer; negative when it is faster."""
        return self.other.median / self.reference.median - 1

    @property
    def beyond_spread(self) -> bool:
        """Whether every step of one side took longer than every step of the other."""
        one, two = self.reference, self.other
        return two.fastest > one.slowest or one.fastest > two.slowest


def steps_of(result: Result) -> Steps | None:
    """The timed steps; None for predictions, and for records without usable times."""
    if not isinstance(result, Record):
        return None
    values = [result.timings.get(key) for key in ("step_ms", "step_ms_min", "step_ms_max")]
    times = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v) and v > 0]
    return Steps(*times) if len(times) == len(values) else None


def _times(one: Case, other: Case) -> Times | None:
    first, second = steps_of(one.result), steps_of(other.result)
    return Times(first, second) if first and second else None


@dataclass(frozen=True)
class DoublePair:
    """Two results that differ in `quant.double` alone."""

    single: Case
    double: Case

    @property
    def quant_state(self) -> Pair:
        """Bytes of the block constants, without (reference) and with double quantisation."""
        return Pair(*(_most(case, Component.QUANT_STATE) for case in (self.single, self.double)))

    @property
    def bits(self) -> tuple[float, float]:
        """Bits per quantised parameter, without and with double quantisation."""
        return self.single.result.bits_per_parameter, self.double.result.bits_per_parameter

    @property
    def peak(self) -> Pair:
        """Allocated peaks, without (reference) and with double quantisation."""
        return Pair(self.single.peak, self.double.peak)

    @property
    def loaded(self) -> Pair:
        """Allocated while loading, at its highest."""
        return Pair(*(case.result.ledger.allocated(Phase.LOAD) for case in (self.single, self.double)))

    @property
    def on_card(self) -> Pair | None:
        """What the process holds on the card once it is loaded, its context included; None on a CPU."""
        held = [
            case.result.reserved.get(Phase.LOAD, 0) + case.result.context
            for case in (self.single, self.double)
            if Phase.LOAD in case.result.reserved
        ]
        return Pair(*held) if len(held) == 2 else None

    @property
    def predicted(self) -> Pair | None:
        """The closed form's peaks for the same two runs; None for predictions."""
        a, b = self.single.comparison, self.double.comparison
        return Pair(a.a.ledger.peak, b.a.ledger.peak) if a and b else None

    @property
    def times(self) -> Times | None:
        """Step times, without (reference) and with double quantisation; None unless both were measured."""
        return _times(self.single, self.double)


@dataclass(frozen=True)
class OptimizerPair:
    """Two results that differ in the optimizer alone: one pages its states, the other keeps them in the allocator."""

    plain: Case
    paged: Case

    @property
    def states(self) -> Pair:
        """Bytes of optimizer states in the allocator, unpaged (reference) and paged."""
        return Pair(*(_most(case, Component.OPTIMIZER) for case in (self.plain, self.paged)))

    @property
    def managed(self) -> int:
        """Bytes of the paged run's states in managed memory, outside the allocator; 0 on a CPU, which has none."""
        result = self.paged.result
        return result.managed if isinstance(result, Prediction) else self.paged.fact("managed") or 0

    @property
    def predicted(self) -> int | None:
        """The closed form's figure for `managed`; None where it gave none beside the record."""
        answer = self.paged.comparison.a if self.paged.comparison else None
        return answer.managed if isinstance(answer, Prediction) else None

    @property
    def peak(self) -> Pair:
        """Allocated peaks, unpaged (reference) and paged."""
        return Pair(self.plain.peak, self.paged.peak)

    @property
    def outside(self) -> Pair | None:
        """What the driver counts as the process's own outside the allocator; None unless both were measured there.

        The context is in both: what the paged run has more are managed pages that live on the card.
        """
        both = (self.plain, self.paged)
        if not all(case.measured and case.result.context for case in both):
            return None
        return Pair(*(case.result.context for case in both))

    @property
    def times(self) -> Times | None:
        """Step times, unpaged (reference) and paged; None unless both were measured."""
        return _times(self.plain, self.paged)


def double_pairs(cases: Sequence[Case]) -> Iterator[DoublePair]:
    """Every run with double quantisation and the same one without; of several measurements the last one read."""
    sides: dict[Hashable, dict[bool, Case]] = {}
    for case in cases:
        scenario = case.result.scenario
        if scenario.quant.type.four_bit and case.complete:
            sides.setdefault((question(scenario, "quant.double"), place(case)), {})[scenario.quant.double] = case
    yield from (DoublePair(both[False], both[True]) for both in sides.values() if len(both) == 2)


def optimizer_pairs(cases: Sequence[Case]) -> Iterator[OptimizerPair]:
    """Every run with a paged optimizer and the same one with its nearest counterpart that pages nothing."""
    runs: dict[Hashable, dict[str, Case]] = {}
    for case in cases:
        scenario = case.result.scenario
        if scenario.method.trains and case.complete:
            runs.setdefault((question(scenario, "optimizer"), place(case)), {})[scenario.optimizer] = case
    for found in runs.values():
        for name, case in found.items():
            plain = next((other for other in unpaged(name) if other in found), None)
            if plain is not None:
                yield OptimizerPair(found[plain], case)


def _most(case: Case, component: Component) -> int:
    ledger = case.result.ledger
    return max(ledger.bytes(phase, component) for phase in ledger.phases)
