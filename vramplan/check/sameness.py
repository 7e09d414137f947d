"""Whether two results answer the same question, and what changed between them apart from their bytes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vramplan.record import Record, Result
from vramplan.scenario import Method, QuantType, Scenario
from vramplan.spelling import shown

#: Facts of the machine that come and go with versions: both can move what the libraries hold.
_MACHINE_VERSIONS = ("driver", "python")
#: Keys of config.json that say who wrote it, not what the model is.
_PROVENANCE = frozenset({"transformers_version", "_name_or_path"})


@dataclass(frozen=True, slots=True)
class Change:
    """Something with another value than in the baseline."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what} {self.before} -> {self.after}"

    def to_json(self) -> dict[str, str]:
        """A plain mapping."""
        return {"what": self.what, "before": self.before, "after": self.after}


def different_fields(baseline: Result, new: Result) -> tuple[Change, ...]:
    """The fields that change memory and differ: with any, the two are not comparable.

    The configuration of a model of the same name is no such field: a changed model is what a check of predictions is
    there to judge. Neither are names and fields that the method does not use.
    """
    before, after = _question(baseline), _question(new)
    keys = dict.fromkeys((*before, *after))
    return tuple(
        Change(key, shown(before.get(key)), shown(after.get(key)))
        for key in keys
        if not _same(key, before.get(key), after.get(key))
    )


def other_changes(baseline: Result, new: Result) -> tuple[Change, ...]:
    """Versions of libraries, driver and Python, and keys of the model's configuration, that are not the baseline's."""
    return (
        *_changed(_versions(baseline), _versions(new)),
        *_changed(_configuration(baseline.scenario), _configuration(new.scenario)),
    )


def _question(result: Result) -> dict[str, Any]:
    """Every field that decides how many bytes the run takes, under its dotted key."""
    scenario = result.scenario
    mapping = {key: value for key, value in scenario.to_mapping().items() if key not in _unused(result)}
    mapping["model"] = scenario.model.name
    fields = dict(_flat(mapping))
    if scenario.quant.type is QuantType.NONE:
        fields = {key: value for key, value in fields.items() if not key.startswith("quant.") or key == "quant.type"}
    if isinstance(result, Record) and "gpu" in result.environment:
        fields["environment.gpu"] = result.environment["gpu"]
    return fields


def _unused(result: Result) -> set[str]:
    """Keys of the scenario without effect on its memory."""
    method = result.scenario.method
    unused = {"name", "torch"}  # a version: what came with a new one is what `check` is asked for
    if not method.adapts:
        unused.add("lora")
    if not method.trains:
        unused |= {"optimizer", "grad_accum", "checkpointing"}
    if method is not Method.INFERENCE:
        unused.add("new_tokens")
    if result.device == "cpu":
        unused.add("gpu")
    return unused


def _same(key: str, before: object, after: object) -> bool:
    """Equal; of the dropout only whether there is any, because its mask has the same size at every rate."""
    return bool(before) == bool(after) if key == "lora.dropout" else before == after


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _versions(result: Result) -> dict[str, Any]:
    versions: dict[str, Any] = {name: text.partition("+")[0] for name, text in result.libraries.items()}  # no +cpu
    if isinstance(result, Record):
        versions |= {name: result.environment[name] for name in _MACHINE_VERSIONS if name in result.environment}
    return versions


def _configuration(scenario: Scenario) -> dict[str, Any]:
    config = {key: value for key, value in scenario.model.config.items() if key not in _PROVENANCE}
    return dict(_flat(config, "model."))


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            yield Change(key, shown(before.get(key)), shown(after.get(key)))
