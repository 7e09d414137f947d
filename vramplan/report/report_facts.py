"""What a report shows: results, each record beside the closed form's answer, their errors in groups, pairs of runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median, quantiles
from typing import Any

from vramplan.check.items import Item
from vramplan.compare import Comparison, Pair
from vramplan.error_table import Summary
from vramplan.ledger import Component
from vramplan.record import SCHEMA, Prediction, Record
from vramplan.stacks import STACKS, LossKernel

_FEW = 20  # values below which a twentieth of them is not one


@dataclass(frozen=True, eq=False)
class Case:
    """One result, and for a record that ended well what the closed form says about its scenario."""

    number: int
    """Its place in the report, from 1."""
    item: Item
    comparison: Comparison | None
    """The closed form (`a`) against the record (`b`); None for predictions, failed runs and refused scenarios."""
    problem: str = ""
    """Why a record has no comparison."""

    @property
    def result(self) -> Prediction | Record:
        """The result itself."""
        return self.item.result

    @property
    def measured(self) -> bool:
        """Whether it is a record."""
        return isinstance(self.result, Record)

    @property
    def peak(self) -> int:
        """Bytes allocated at the highest high-water mark; 0 for a run that ended before it held anything."""
        return self.result.ledger.peak if self.result.ledger.entries else 0

    @property
    def outcome(self) -> str:
        """How the run ended; a prediction says whether it fits, where it was asked."""
        if isinstance(self.result, Record):
            return self.result.outcome.value
        return self.result.verdict.word if self.result.verdict else "predicted"


@dataclass(frozen=True, eq=False)
class Miss:
    """How far one engine's prediction is from one record."""

    engine: str
    case: Case
    comparison: Comparison

    @property
    def error(self) -> float:
        """The signed relative error of the allocated peak."""
        return self.comparison.peak.relative or 0.0

    @property
    def reserved(self) -> Pair | None:
        """The reserved peaks; None where either side reserves nothing (cpu)."""
        record, prediction = self.comparison.b, self.comparison.a
        peaks = [max(side.reserved.values(), default=0) for side in (record, prediction)]
        return Pair(*peaks) if all(peaks) else None

    @property
    def static_equal(self) -> bool:
        """Whether what is held from step to step is equal to the byte (see `Comparison.static_equal`)."""
        return self.comparison.static_equal


@dataclass(frozen=True)
class Group:
    """The errors of the records that have one thing in common."""

    by: str
    """What groups them: `engine`, `device`, `method`, `family`, `stack`."""
    name: str
    errors: tuple[float, ...]
    """Signed relative errors of the allocated peak."""

    @property
    def summary(self) -> Summary:
        """Their magnitudes."""
        return summary(self.errors)


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
    def peak(self) -> Pair:
        """Allocated peaks, without (reference) and with double quantisation."""
        return Pair(self.single.peak, self.double.peak)

    @property
    def predicted(self) -> Pair | None:
        """The closed form's peaks for the same two runs; None for predictions."""
        a, b = self.single.comparison, self.double.comparison
        return Pair(a.a.ledger.peak, b.a.ledger.peak) if a and b else None


@dataclass(frozen=True)
class Report:
    """Everything that a report shows, in whichever format."""

    cases: tuple[Case, ...]
    misses: tuple[Miss, ...]
    """Of the closed form for every comparable record, and of other engines where their prediction was given too."""
    doubles: tuple[DoublePair, ...]
    skipped: tuple[str, ...]
    """Files of the directories that hold no result, each with the reason."""

    @cached_property
    def records(self) -> tuple[Case, ...]:
        """The measured ones."""
        return tuple(case for case in self.cases if case.measured)

    @cached_property
    def closed_form(self) -> tuple[Miss, ...]:
        """The errors of the closed form, one per comparable record."""
        return tuple(miss for miss in self.misses if miss.engine == "analytic")

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Errors by engine, and the closed form's by device, method, family and stack; the names in order."""
        found: dict[tuple[str, str], list[float]] = {}
        for miss in self.misses:
            found.setdefault(("engine", miss.engine), []).append(miss.error)
        for by, name in _GROUPS.items():
            for miss in sorted(self.closed_form, key=lambda miss: name(miss.case)):
                found.setdefault((by, name(miss.case)), []).append(miss.error)
        return tuple(Group(*key, tuple(errors)) for key, errors in found.items())

    @property
    def band(self) -> tuple[float, float]:
        """The interval that the closed form's errors lie in, but for the share that `in_band` names."""
        return band([miss.error for miss in self.closed_form])

    @property
    def in_band(self) -> str:
        """How many errors the band holds: `9 in 10`, or `all` when they are few."""
        return "all" if len(self.closed_form) < _FEW else "9 in 10"

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: report`; errors are fractions."""
        return {
            "schema": SCHEMA,
            "kind": "report",
            "results": [_case_json(case) for case in self.cases],
            "errors": [_miss_json(miss) for miss in self.misses],
            "groups": [
                {"by": group.by, "name": group.name, "records": len(group.errors), **_summary_json(group.summary)}
                for group in self.groups
            ],
            "double_quantisation": [_double_json(pair) for pair in self.doubles],
            "skipped": list(self.skipped),
        }


def band(errors: Sequence[float]) -> tuple[float, float]:
    """The 5 % and 95 % quantiles; with fewer than twenty values the smallest and the largest."""
    if len(errors) < _FEW:
        return min(errors, default=0.0), max(errors, default=0.0)
    cuts = quantiles(errors, n=20, method="inclusive")
    return cuts[0], cuts[-1]


def summary(errors: Sequence[float]) -> Summary:
    """Mean, median and worst magnitude."""
    sizes = [abs(error) for error in errors]
    return Summary(mean(sizes), median(sizes), max(sizes))


def family(case: Case) -> str:
    """The model's family, as its configuration names it."""
    return str(case.result.scenario.model.config.get("model_type", "unknown"))


def stack_name(case: Case) -> str:
    """The stack, and what differs from the one of that name: `script, outputs freed`."""
    stack = case.result.scenario.stack
    named = STACKS.get(stack.base)
    parts = [stack.base]
    if named and stack.outputs is not named.outputs:
        parts.append(f"outputs {stack.outputs.value}")
    if stack.loss is not LossKernel.TORCH:
        parts.append(f"{stack.loss.value} loss")
    if named and bool(stack.autocast) != bool(named.autocast):
        parts.append("autocast" if stack.autocast else "no autocast")
    parts += [f"upcast {stack.upcast.value}"] if named and stack.upcast is not named.upcast else []
    return ", ".join(parts)


_GROUPS: Mapping[str, Callable[[Case], str]] = {
    "device": lambda case: case.result.device,
    "method": lambda case: case.result.scenario.method.value,
    "family": family,
    "stack": stack_name,
}


def _most(case: Case, component: Component) -> int:
    ledger = case.result.ledger
    return max(ledger.bytes(phase, component) for phase in ledger.phases)


def _case_json(case: Case) -> dict[str, Any]:
    result = case.result
    return {
        "source": case.item.source,
        "scenario": result.scenario.name,
        "kind": "measurement" if case.measured else "prediction",
        "engine": result.engine,
        "device": result.device,
        "family": family(case),
        "stack": stack_name(case),
        "outcome": case.outcome,
        "peak": case.peak or None,
        "predicted": case.comparison.a.ledger.peak if case.comparison else None,
        "problem": case.problem,
    }


def _miss_json(miss: Miss) -> dict[str, Any]:
    peak, reserved = miss.comparison.peak, miss.reserved
    body: dict[str, Any] = {
        "engine": miss.engine,
        "source": miss.case.item.source,
        "scenario": miss.case.result.scenario.name,
        "allocated": {"predicted": peak.other, "measured": peak.reference, "error": round(miss.error, 6)},
        "static_equal": miss.static_equal,
    }
    if reserved:
        error = round(reserved.relative or 0.0, 6)
        body["reserved"] = {"predicted": reserved.other, "measured": reserved.reference, "error": error}
    return body


def _double_json(pair: DoublePair) -> dict[str, Any]:
    def body(both: Pair) -> dict[str, int]:
        return {"single": both.reference, "double": both.other, "saved": -both.difference}

    return {
        "single": pair.single.item.source,
        "double": pair.double.item.source,
        "engine": pair.double.result.engine,
        "device": pair.double.result.device,
        "bits_per_parameter": {
            "single": pair.single.result.bits_per_parameter,
            "double": pair.double.result.bits_per_parameter,
        },
        "quant_state": body(pair.quant_state),
        "peak": body(pair.peak),
        **({"predicted_peak": body(pair.predicted)} if pair.predicted else {}),
    }


def _summary_json(value: Summary) -> dict[str, float]:
    return {name: round(getattr(value, name), 6) for name in ("mean", "median", "worst")}
