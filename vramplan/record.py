"""What a prediction or a measurement answers, and its JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from vramplan.errors import UsageError
from vramplan.files import read_object, write_whole
from vramplan.ledger import Component, Entry, Ledger, Phase
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import human

SCHEMA = 1
Device = Literal["cuda", "cpu"]


class Outcome(StrEnum):
    """How a measured run ended."""

    OK = "ok"
    OOM = "oom"
    KILLED = "killed"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many parameters the model has, adapters excluded from `total`."""

    total: int
    quantized: int
    trainable: int


class Fit(StrEnum):
    """Whether a run fits, and how surely."""

    FITS = "fits"
    TIGHT = "tight"  # an error that the engine has made before would turn the answer, be it yes or no
    NO = "does not fit"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the run fits the budget."""

    budget: int
    """Bytes that the process may hold on the card, context included."""
    word: Fit
    margin: int
    """Budget less what the process needs; negative when it does not fit."""

    @property
    def fits(self) -> bool:
        """Whether it fits if the engine is right; a run that is `tight` may or may not."""
        return self.margin >= 0

    @property
    def needed(self) -> int:
        """What the process needs at most on the card, context included; cached memory that it gives back in time is
        not among it."""
        return self.budget - self.margin

    def to_json(self) -> dict[str, Any]:
        """The `verdict` object of every answer that has one."""
        return {
            "budget": self.budget,
            "fits": self.fits,
            "word": self.word.value,
            "margin": self.margin,
            "needed": self.needed,
        }


@dataclass(frozen=True, kw_only=True)
class Result:
    """The bytes of one scenario on one device, predicted or measured."""

    engine: str
    """`analytic`, `trace` or `measure`."""
    device: Device
    scenario: Scenario
    parameters: Parameters
    bits_per_parameter: float
    """Of the base model's quantised linear layers, packed weights and block constants together."""
    ledger: Ledger
    reserved: Mapping[Phase, int] = field(default_factory=dict)
    """Running high-water mark of the allocator's segments at the end of each phase; empty on cpu."""
    attention: tuple[str, ...] = ()
    """Kernels behind `sdpa`, for layers with and without a mask; empty where the scenario names the code itself."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Library versions that were modelled or run."""
    warnings: tuple[str, ...] = ()

    @property
    def context(self) -> int:
        """Bytes the process holds on the device outside the allocator; 0 on cpu."""
        return max((e.bytes for e in self.ledger.entries if e.component is Component.CONTEXT), default=0)

    @property
    def peak_reserved(self) -> int:
        """The most that the allocator reserves in the run; 0 on cpu."""
        return max(self.reserved.values(), default=0)

    @property
    def peak_on_device(self) -> int:
        """The same with what the process holds outside the allocator; 0 on cpu."""
        return self.peak_reserved + self.context

    def __repr__(self) -> str:
        """One line, for whoever looks at it in a session; `ledger` and `to_json()` have the rest."""
        peak = f"peak {human(self.ledger.peak)} in {self.ledger.peak_phase}" if self.ledger.entries else "no memory"
        ends = ", ".join((peak, *self._ends()))
        return f"<{type(self).__name__} of '{self.scenario.name}', {self.engine} on {self.device}: {ends}>"

    def _ends(self) -> tuple[str, ...]:
        """What a kind of result concludes, in a word."""
        return ()

    def _body(self, kind: str) -> dict[str, Any]:
        """A run that ended before anything was measured has no peak and no phases."""
        body = {"schema": SCHEMA, "kind": kind, "engine": self.engine, "device": self.device} | {
            "scenario": self.scenario.to_mapping(),
            "parameters": {name: getattr(self.parameters, name) for name in Parameters.__slots__},
            "bits_per_parameter": round(self.bits_per_parameter, 4),
        }
        if self.ledger.entries:
            body |= {"peak": self._peak(), "steady": {"allocated": self.ledger.steady}}
        body["phases"] = {phase.value: self._phase(phase) for phase in self.ledger.phases}
        body["entries"] = [_entry_json(entry) for entry in self.ledger.entries]
        if self.ledger.entries:
            body["attention"] = list(self.attention)
        return body | {"libraries": dict(self.libraries), "warnings": list(self.warnings)}

    def _peak(self) -> dict[str, Any]:
        peak: dict[str, Any] = {"phase": self.ledger.peak_phase, "allocated": self.ledger.peak}
        return peak | ({"reserved": self.peak_reserved, "device": self.peak_on_device} if self.reserved else {})

    def _phase(self, phase: Phase) -> dict[str, int]:
        totals = {"allocated": self.ledger.allocated(phase)}
        if phase in self.reserved:
            totals["reserved"] = self.reserved[phase]
        return totals


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction(Result):
    """What a scenario will need."""

    verdict: Verdict | None = None
    """None without a card or budget to judge against."""
    managed: int = 0
    """Bytes of paged optimizer states, in managed memory outside the allocator; main memory takes what the card cannot.

    In no component and no phase of the ledger.
    """

    @property
    def unjudged(self) -> bool:
        """Whether it is of a card of which nothing says how much memory it has."""
        return self.verdict is None and self.device == "cuda"

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: prediction`."""
        body = self._body("prediction") | {"managed": self.managed}
        if self.verdict is not None:
            body["verdict"] = self.verdict.to_json()
        return body

    def _ends(self) -> tuple[str, ...]:
        return () if self.verdict is None else (self.verdict.word.value,)


@dataclass(frozen=True, kw_only=True, repr=False)
class Record(Result):
    """What a scenario took, measured: the same shape plus how, where and how long."""

    outcome: Outcome
    environment: Mapping[str, Any]
    """Device kind, GPU, driver, versions, date."""
    timings: Mapping[str, Any]
    """Step times in milliseconds."""
    note: str = ""
    """What happened, when the outcome is not ok."""

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: measurement`."""
        return self._body("measurement") | {
            "environment": dict(self.environment),
            "timings": dict(self.timings),
            "outcome": self.outcome.value,
            "note": self.note,
        }

    def _ends(self) -> tuple[str, ...]:
        return (self.outcome.value,)


#: What a measurement finds by subtraction, so that it may come out below nothing.
_DIFFERENCES = (Component.WORKSPACE, Component.ALLOCATOR, Component.UNKNOWN)
#: Bytes that something holds.
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Marks(msgspec.Struct, frozen=True):
    """A phase's high-water marks, as a record's file has them."""

    allocated: _Size
    reserved: _Size | None = None


class _Body(msgspec.Struct, frozen=True):
    """What a record's file holds: its keys and their types."""

    schema: int
    kind: Literal["prediction", "measurement"]
    engine: Literal["analytic", "trace", "measure"]
    device: Device
    scenario: dict[str, Any]
    parameters: Parameters
    bits_per_parameter: float
    phases: dict[Phase, _Marks]
    entries: tuple[Entry, ...]
    libraries: dict[str, str]
    warnings: tuple[str, ...]
    steady: dict[str, _Size] = {}
    attention: tuple[str, ...] = ()
    verdict: Verdict | None = None
    managed: _Size = 0
    outcome: Outcome = Outcome.OK
    environment: dict[str, Any] = {}
    timings: dict[str, Any] = {}
    note: str = ""


def _check_entries(found: _Body) -> None:
    """ValueError for what types do not tell."""
    if found.kind == "prediction" and not found.entries:
        raise ValueError("a prediction without entries")
    for entry in found.entries:
        if entry.bytes < 0 and entry.component not in _DIFFERENCES:
            raise ValueError(f"{entry.component.value} in {entry.phase.value} holds {entry.bytes} bytes")


def result_from_json(body: Mapping[str, Any], *, source: str = "record") -> Prediction | Record:
    """The prediction or record that `to_json` wrote; a broken or foreign object is a UsageError naming `source`."""
    if isinstance(body, dict) and body.get("schema", SCHEMA) != SCHEMA:
        raise UsageError(f"{source}: schema {body['schema']!r} is unknown", hint=f"this version reads schema {SCHEMA}")
    try:
        found = msgspec.convert(body, _Body)
        _check_entries(found)
    except (msgspec.ValidationError, ValueError) as error:  # the second also for half of a surrogate pair
        reason = str(error).replace("`", "'")
        raise UsageError(
            f"{source} is not a vramplan record: {reason[:1].lower()}{reason[1:]}",
            hint="records are written by `vramplan measure` and `vramplan predict --json`",
        ) from error
    common: dict[str, Any] = {
        "engine": found.engine,
        "device": found.device,
        "scenario": scenario_from_mapping(found.scenario, where=source),
        "parameters": found.parameters,
        "bits_per_parameter": found.bits_per_parameter,
        "ledger": Ledger(found.entries, found.steady.get("allocated", 0)),
        "reserved": {phase: marks.reserved for phase, marks in found.phases.items() if marks.reserved is not None},
        "attention": found.attention,
        "libraries": found.libraries,
        "warnings": found.warnings,
    }
    if found.kind == "prediction":
        return Prediction(**common, verdict=found.verdict, managed=found.managed)
    facts = {name: getattr(found, name) for name in ("outcome", "environment", "timings", "note")}
    return Record(**common, **facts)


def load_result(path: Path) -> Prediction | Record:
    """The prediction or record in a JSON file."""
    hint = (
        "give one record or prediction (where `predict --json` prints a list, of a matrix, one of its elements);"
        " Scenario.load reads a scenario"
    )
    return result_from_json(read_object(path, hint=hint), source=str(path))


def save_result(result: Prediction | Record, path: Path) -> None:
    """Write the JSON whole or not at all."""
    write_whole(path, json.dumps(result.to_json(), indent=1) + "\n")


def _entry_json(entry: Entry) -> dict[str, Any]:
    body: dict[str, Any] = {
        "phase": entry.phase.value,
        "component": entry.component.value,
        "bytes": entry.bytes,
        "basis": entry.basis.value,
    }
    return body | {"note": entry.note} if entry.note else body
