"""What a prediction or a measurement answers, and its JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from vramplan.errors import UsageError
from vramplan.files import write_whole
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the run fits the budget."""

    budget: int
    """Bytes that the process may hold on the card, context included."""
    fits: bool
    word: str
    """`fits`, `tight` or `does not fit`."""
    margin: int
    """Budget less what the process needs; negative when it does not fit."""


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

    def _body(self, kind: str) -> dict[str, Any]:
        peak: dict[str, Any] = {"phase": self.ledger.peak_phase, "allocated": self.ledger.peak}
        if self.reserved:
            peak["reserved"] = max(self.reserved.values())
            peak["device"] = peak["reserved"] + self.context
        return {
            "schema": SCHEMA,
            "kind": kind,
            "engine": self.engine,
            "device": self.device,
            "scenario": self.scenario.to_mapping(),
            "parameters": {name: getattr(self.parameters, name) for name in Parameters.__slots__},
            "bits_per_parameter": round(self.bits_per_parameter, 4),
            "peak": peak,
            "steady": {"allocated": self.ledger.steady},
            "phases": {phase.value: self._phase(phase) for phase in self.ledger.phases},
            "entries": [_entry_json(entry) for entry in self.ledger.entries],
            "attention": list(self.attention),
            "libraries": dict(self.libraries),
            "warnings": list(self.warnings),
        }

    def _phase(self, phase: Phase) -> dict[str, int]:
        totals = {"allocated": self.ledger.allocated(phase)}
        if phase in self.reserved:
            totals["reserved"] = self.reserved[phase]
        return totals


@dataclass(frozen=True, kw_only=True)
class Prediction(Result):
    """What a scenario will need."""

    verdict: Verdict | None = None
    """None without a card or budget to judge against."""
    managed: int = 0
    """Bytes of paged optimizer states, in managed memory outside the allocator; main memory takes what the card cannot.

    In no component and no phase of the ledger.
    """

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: prediction`."""
        body = self._body("prediction") | {"managed": self.managed}
        if self.verdict is not None:
            body["verdict"] = {name: getattr(self.verdict, name) for name in Verdict.__slots__}
        return body


@dataclass(frozen=True, kw_only=True)
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
        body = self._body("measurement") if self.ledger.entries else self._failed()
        return body | {
            "environment": dict(self.environment),
            "timings": dict(self.timings),
            "outcome": self.outcome.value,
            "note": self.note,
        }

    def _failed(self) -> dict[str, Any]:
        """A run that ended before anything was measured has no peak and no phases."""
        body = {"schema": SCHEMA, "kind": "measurement", "engine": self.engine, "device": self.device}
        return body | {
            "scenario": self.scenario.to_mapping(),
            "parameters": {name: getattr(self.parameters, name) for name in Parameters.__slots__},
            "bits_per_parameter": round(self.bits_per_parameter, 4),
            "phases": {},
            "entries": [],
            "libraries": dict(self.libraries),
            "warnings": list(self.warnings),
        }


def result_from_json(body: Mapping[str, Any], *, source: str = "record") -> Prediction | Record:
    """The prediction or record that `to_json` wrote; a broken or foreign object is a UsageError naming `source`."""
    try:
        if body["schema"] != SCHEMA:
            raise UsageError(
                f"{source}: schema {body['schema']!r} is unknown", hint=f"this version reads schema {SCHEMA}"
            )
        common: dict[str, Any] = {
            "engine": body["engine"],
            "device": body["device"],
            "scenario": scenario_from_mapping(body["scenario"]),
            "parameters": Parameters(**body["parameters"]),
            "bits_per_parameter": body["bits_per_parameter"],
            "ledger": Ledger(tuple(map(_entry, body["entries"])), body.get("steady", {}).get("allocated", 0)),
            "reserved": {Phase(p): t["reserved"] for p, t in body["phases"].items() if "reserved" in t},
            "attention": tuple(body.get("attention", ())),
            "libraries": body["libraries"],
            "warnings": tuple(body["warnings"]),
        }
        if body["kind"] == "prediction":
            verdict = Verdict(**body["verdict"]) if "verdict" in body else None
            return Prediction(**common, verdict=verdict, managed=body.get("managed", 0))
        return Record(
            **common,
            outcome=Outcome(body["outcome"]),
            environment=body["environment"],
            timings=body["timings"],
            note=body.get("note", ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{source} is not a vramplan record: {type(error).__name__}: {error}",
            hint="records are written by `vramplan measure` and `vramplan predict --json`",
        ) from error


def load_result(path: Path) -> Prediction | Record:
    """The prediction or record in a JSON file."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", hint="give a record written by `vramplan measure`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", hint="give a record written by `vramplan measure`") from error
    return result_from_json(body, source=str(path))


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


def _entry(body: Mapping[str, Any]) -> Entry:
    return Entry(
        Phase(body["phase"]), Component(body["component"]), body["bytes"], Basis(body["basis"]), body.get("note", "")
    )
