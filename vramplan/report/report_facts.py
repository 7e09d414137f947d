"""What a report shows: results, each record beside the closed form's answer, their errors in groups, pairs of runs."""

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from vramplan.check.items import Item, read_file, result_files
from vramplan.compare import Comparison, Pair, compare
from vramplan.error_table import Summary
from vramplan.errors import UsageError, VramplanError
from vramplan.ledger import STATIC_COMPONENTS, Component
from vramplan.record import SCHEMA, Device, Outcome, Prediction, Record
from vramplan.scenario import Scenario
from vramplan.stacks import STACKS, LossKernel

Predict = Callable[[Scenario, Device], Prediction]

_FEW = 20  # values below which a twentieth of them is not one
_WRITERS = "records are written by `vramplan measure --out` and `vramplan predict --json`"


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
        """Whether every static component of every phase is equal to the byte."""
        rows = (row for row in self.comparison.rows if row.component in STATIC_COMPONENTS)
        return all(row.pair.difference == 0 for row in rows)


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


def read_report(paths: Iterable[Path], predict: Predict) -> Report:
    """The report on the records and predictions of files and directories.

    A named file that holds no result is a UsageError; one found in a directory is listed as skipped.
    """
    items: list[Item] = []
    skipped: list[str] = []
    read: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint=_WRITERS)
        for file in result_files(path):
            if file.resolve() in read:
                continue
            read.add(file.resolve())
            try:
                items += read_file(file)
            except UsageError as error:
                if file == path:
                    raise
                skipped.append(error.message)
    if not items:
        raise UsageError("there is no record and no prediction to report on", hint="; ".join(skipped[:3]) or _WRITERS)
    return make_report(items, predict, skipped=skipped)


def make_report(items: Sequence[Item], predict: Predict, *, skipped: Iterable[str] = ()) -> Report:
    """The report on results that were read; `predict` is the closed form, asked once per scenario and device."""
    known: dict[tuple[str, Device], Prediction | str] = {}
    with _without_collector():
        cases = tuple(_case(number, item, predict, known) for number, item in enumerate(items, 1))
    return Report(cases, tuple(_misses(cases)), tuple(_doubles(cases)), tuple(skipped))


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


@contextmanager
def _without_collector() -> Iterator[None]:
    """Many predictions make millions of tuples and no cycles; looking for cycles among them takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _case(number: int, item: Item, predict: Predict, known: dict[tuple[str, Device], Prediction | str]) -> Case:
    record = item.result
    if not isinstance(record, Record):
        return Case(number, item, None)
    if record.outcome is not Outcome.OK or not record.ledger.entries or not record.ledger.peak:
        return Case(number, item, None, record.note or f"ended as {record.outcome.value}")
    key = _question(record.scenario), record.device
    if key not in known:
        try:
            known[key] = predict(record.scenario, record.device)
        except VramplanError as error:
            known[key] = f"not predicted: {error.message}"
    answer = known[key]
    if isinstance(answer, str):
        return Case(number, item, None, answer)
    try:
        return Case(number, item, compare(answer, record))
    except UsageError as error:
        return Case(number, item, None, f"not compared: {error.message}")


def _question(scenario: Scenario, *, ignored: str = "") -> str:
    """The scenario without its name, as a key; `ignored` names one key of `quant` that does not count."""
    mapping = scenario.to_mapping()
    mapping["quant"].pop(ignored, None)
    return json.dumps({**mapping, "name": ""}, sort_keys=True)


def _misses(cases: Sequence[Case]) -> Iterator[Miss]:
    """The closed form's misses, then those of other engines' predictions that were given with the records."""
    compared = [(case, case.comparison) for case in cases if case.comparison]
    yield from (Miss("analytic", case, comparison) for case, comparison in compared)
    records: dict[tuple[str, str], list[Case]] = {}
    for case, _ in compared:
        records.setdefault((_question(case.result.scenario), case.result.device), []).append(case)
    for other in cases:
        if not other.measured and other.result.engine != "analytic":
            for case in records.get((_question(other.result.scenario), other.result.device), []):
                yield Miss(other.result.engine, case, compare(other.result, case.result))


def _doubles(cases: Sequence[Case]) -> Iterator[DoublePair]:
    """Every run with double quantisation and the same one without; of several measurements the last one read."""
    sides: dict[tuple[str, ...], dict[bool, Case]] = {}
    for case in cases:
        scenario, result = case.result.scenario, case.result
        if scenario.quant.type.four_bit and case.peak:
            gpu = str(result.environment.get("gpu", "")) if isinstance(result, Record) else ""
            key = _question(scenario, ignored="double"), result.engine, result.device, gpu
            sides.setdefault(key, {})[scenario.quant.double] = case
    yield from (DoublePair(both[False], both[True]) for both in sides.values() if len(both) == 2)


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
