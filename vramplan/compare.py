"""Two results side by side: any of prediction and record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vramplan.errors import UsageError
from vramplan.ledger import RESIDENT_COMPONENTS, Component, Phase
from vramplan.record import SCHEMA, Record, Result
from vramplan.spelling import shown


@dataclass(frozen=True, slots=True)
class Pair:
    """The same quantity on both sides, in bytes."""

    reference: int
    other: int

    @property
    def difference(self) -> int:
        """Bytes that the other side has more than the reference; negative when it has less."""
        return self.other - self.reference

    @property
    def relative(self) -> float | None:
        """The difference as a share of the reference; None when the reference is 0 and the other is not."""
        if self.difference == 0:
            return 0.0
        return self.difference / self.reference if self.reference else None


@dataclass(frozen=True, slots=True)
class Row:
    """One component at one phase's high-water mark, on both sides."""

    phase: Phase
    component: Component
    pair: Pair


@dataclass(frozen=True, slots=True)
class Total:
    """What one phase holds altogether, on both sides."""

    phase: Phase
    allocated: Pair
    reserved: Pair | None
    """None unless both sides have an allocator that reserves."""


@dataclass(frozen=True)
class Comparison:
    """Two results of one or two scenarios, phase by phase and component by component.

    Differences are `other - reference`. The reference is the measurement when just one side is measured, else `a`.
    """

    a: Result
    b: Result
    reference: Literal["a", "b"]
    rows: tuple[Row, ...]
    """Components that hold anything on either side, phases that both sides have."""
    totals: tuple[Total, ...]
    peak: Pair
    """Bytes allocated at the highest high-water mark of each side, in whichever phase that is."""
    steady: Pair
    notes: tuple[str, ...]
    """What else differs: the scenario, the device, library versions, phases that one side lacks."""

    @property
    def reserved(self) -> Pair | None:
        """The most that each side's allocator reserves; None where either side reserves nothing (cpu)."""
        first, second = (self.a, self.b) if self.reference == "a" else (self.b, self.a)
        peaks = first.peak_reserved, second.peak_reserved
        return Pair(*peaks) if all(peaks) else None

    @property
    def equal(self) -> bool:
        """Whether every component of every phase is equal to the byte."""
        return all(row.pair.difference == 0 for row in self.rows)

    @property
    def static_equal(self) -> bool:
        """Whether what a run holds from step to step is equal to the byte in every phase after loading.

        While loading, and of the gradients, how much is there depends on which moment of the phase was the highest.
        """
        resident = (r for r in self.rows if r.component in RESIDENT_COMPONENTS and r.phase is not Phase.LOAD)
        return all(row.pair.difference == 0 for row in resident)

    def side(self, pair: Pair, letter: str) -> int:
        """The bytes of side `a` or `b` in a pair."""
        return pair.reference if letter == self.reference else pair.other

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: comparison`."""
        return {
            "schema": SCHEMA,
            "kind": "comparison",
            "a": _side_json(self.a),
            "b": _side_json(self.b),
            "reference": self.reference,
            "equal": self.equal,
            "peak": self._pair_json(self.peak),
            "steady": self._pair_json(self.steady),
            "phases": {total.phase.value: self._total_json(total) for total in self.totals},
            "entries": [
                {"phase": row.phase.value, "component": row.component.value, **self._pair_json(row.pair)}
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def _total_json(self, total: Total) -> dict[str, Any]:
        body = {"allocated": self._pair_json(total.allocated)}
        return body | {"reserved": self._pair_json(total.reserved)} if total.reserved else body

    def _pair_json(self, pair: Pair) -> dict[str, Any]:
        relative = None if pair.relative is None else round(pair.relative, 6)
        both = {letter: self.side(pair, letter) for letter in "ab"}
        return both | {"difference": pair.difference, "relative": relative}


def compare(a: Result, b: Result) -> Comparison:
    """`a` against `b`; a run that ended before anything was measured cannot be compared (UsageError)."""
    for result in (a, b):
        if not result.ledger.entries:
            raise UsageError(f"{label(result)} has no memory to compare", hint=_failure(result))
    reference: Literal["a", "b"] = "b" if isinstance(b, Record) and not isinstance(a, Record) else "a"
    first, second = (a, b) if reference == "a" else (b, a)
    phases = [phase for phase in first.ledger.phases if phase in second.ledger.phases]
    if not phases:
        raise UsageError("the two sides have no phase in common", hint="compare two trainings, or two inferences")
    return Comparison(
        a=a,
        b=b,
        reference=reference,
        rows=tuple(_rows(first, second, phases)),
        totals=tuple(_total(first, second, phase) for phase in phases),
        peak=Pair(first.ledger.peak, second.ledger.peak),
        steady=Pair(first.ledger.steady, second.ledger.steady),
        notes=tuple(_notes(a, b)),
    )


class Label(NamedTuple):
    """Who says so, in two words: `predicted (analytic)`, `measured (cpu)`."""

    how: str
    by: str
    """The device that was measured, or the engine that predicts."""

    def __str__(self) -> str:
        return f"{self.how} ({self.by})"


def label(result: Result) -> Label:
    """Who says what the result says."""
    return Label("measured", result.device) if isinstance(result, Record) else Label("predicted", result.engine)


def _failure(result: Result) -> str:
    if not isinstance(result, Record):
        return ""
    note = f": {result.note}" if result.note else ""
    return f"the run of '{result.scenario.name}' ended as {result.outcome.value}{note}"


def _rows(first: Result, second: Result, phases: Sequence[Phase]) -> Iterator[Row]:
    for phase in phases:
        for component in Component:
            pair = Pair(first.ledger.bytes(phase, component), second.ledger.bytes(phase, component))
            if pair.reference or pair.other:
                yield Row(phase, component, pair)


def _total(first: Result, second: Result, phase: Phase) -> Total:
    both = phase in first.reserved and phase in second.reserved
    return Total(
        phase,
        Pair(first.ledger.allocated(phase), second.ledger.allocated(phase)),
        Pair(first.reserved[phase], second.reserved[phase]) if both else None,
    )


def _side_json(result: Result) -> dict[str, Any]:
    ledger = result.ledger
    return {
        "kind": "measurement" if isinstance(result, Record) else "prediction",
        "engine": result.engine,
        "device": result.device,
        "scenario": result.scenario.name,
        "peak": {"phase": ledger.peak_phase.value, "allocated": ledger.peak},
    }


def _notes(a: Result, b: Result) -> Iterator[str]:
    if a.device != b.device:
        yield f"different devices: {a.device} against {b.device}"
    changed = list(_changed_keys(a.scenario.to_mapping(), b.scenario.to_mapping()))
    if changed:
        yield f"different scenarios: {'; '.join(changed)}"
    libraries = a.libraries.keys() & b.libraries.keys()
    if a.device == b.device == "cuda" and isinstance(a, Record) is not isinstance(b, Record):
        libraries -= {"torch"}  # whose release is a key of what is predicted for a card, compared with the others
    for library in sorted(libraries):
        one, other = (result.libraries[library].partition("+")[0] for result in (a, b))  # 2.13.0+cpu is 2.13.0
        if one != other:
            yield f"different {library}: {one} against {other}"
    alike = label(a) == label(b)
    for side, has, lacks in (("a", a, b), ("b", b, a)):
        only = [phase.value for phase in has.ledger.phases if phase not in lacks.ledger.phases]
        if only:
            yield f"only {side if alike else label(has)} has the phase {', '.join(only)}"


def _changed_keys(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`batch 1 against 2` for every key that differs, nested ones dotted; names and the configuration in short."""
    for key in dict.fromkeys((*a, *b)):
        one, other = a.get(key), b.get(key)
        if one == other or (key == "name" and not prefix):
            continue
        if key == "model":
            yield f"model {_model_name(one)} against {_model_name(other)}"
        elif isinstance(one, dict) and isinstance(other, dict):
            yield from _changed_keys(one, other, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} {shown(one)} against {shown(other)}"


def _model_name(model: Any) -> str:
    return str(model.get("_name_or_path", "(inline)")) if isinstance(model, dict) else str(model)
