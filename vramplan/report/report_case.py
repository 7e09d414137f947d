"""One result of a report, beside the closed form's answer to its scenario."""

import json
from dataclasses import dataclass

from vramplan.check.items import Item
from vramplan.compare import Comparison, Pair
from vramplan.record import Outcome, Prediction, Record, Result
from vramplan.report.stack_words import stack_words
from vramplan.scenario import Scenario


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
    def sides(self) -> tuple[Result, ...]:
        """The result, and after it the closed form's answer where the two are compared."""
        return (self.result, self.comparison.a) if self.comparison else (self.result,)

    @property
    def name(self) -> str:
        """The scenario's."""
        return self.result.scenario.name

    @property
    def measured(self) -> bool:
        """Whether it is a record."""
        return isinstance(self.result, Record)

    @property
    def peak(self) -> int:
        """Bytes allocated at the highest high-water mark; 0 for a run that ended before it held anything."""
        return self.result.ledger.peak if self.result.ledger.entries else 0

    @property
    def complete(self) -> bool:
        """Whether its figures are those of the whole run: a run out of memory has only what it got to."""
        return bool(self.peak) and (not isinstance(self.result, Record) or self.result.outcome is Outcome.OK)

    @property
    def outcome(self) -> str:
        """How the run ended; a prediction says whether it fits, where it was asked."""
        if isinstance(self.result, Record):
            return self.result.outcome.value
        return self.result.verdict.word.value if self.result.verdict else "predicted"

    @property
    def how(self) -> str:
        """`measured, cuda`, `analytic, cpu`."""
        return f"{'measured' if self.measured else self.result.engine}, {self.result.device}"

    def fact(self, name: str) -> int | None:
        """An amount of the record's environment; None for predictions and where the record does not say."""
        value = self.result.environment.get(name) if isinstance(self.result, Record) else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None


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
        return self.comparison.reserved

    @property
    def static_equal(self) -> bool:
        """Whether what is held from step to step is equal to the byte (see `Comparison.static_equal`)."""
        return self.comparison.static_equal


def question(scenario: Scenario, *ignored: str) -> str:
    """The scenario without its name, as a key; `ignored` names keys that do not count, nested ones dotted."""
    mapping = {**scenario.to_mapping(), "name": ""}
    for dotted in ignored:
        *outer, key = dotted.split(".")
        inner = mapping
        for name in outer:
            inner = inner[name]
        inner.pop(key, None)
    return json.dumps(mapping, sort_keys=True)


def place(case: Case) -> tuple[str, str, str, int | None]:
    """What two results must share to be compared at all: engine, device, card, and the allocator's limit."""
    result = case.result
    gpu = str(result.environment.get("gpu", "")) if isinstance(result, Record) else ""
    return result.engine, result.device, gpu, case.fact("memory_limit")


def family(case: Case) -> str:
    """The model's family, as its configuration names it."""
    return str(case.result.scenario.model.config.get("model_type", "unknown"))


def stack_name(case: Case) -> str:
    """The stack, and what differs from the one of that name: `script, outputs freed`."""
    return stack_words(case.result.scenario)
