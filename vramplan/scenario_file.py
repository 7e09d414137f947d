"""From YAML to scenarios: read, override, expand the matrix."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vramplan.errors import UsageError
from vramplan.model_source import NAME_KEY
from vramplan.scenario import Scenario
from vramplan.scenario_resolve import resolve_scenario
from vramplan.spelling import in_yaml, shown

LARGEST_MATRIX = 100_000


def read_scenarios(path: Path, overrides: Mapping[str, Any] | None = None) -> tuple[Scenario, ...]:
    """The scenarios of a YAML file: one, or as many as its `matrix:` spells out.

    `overrides` maps dotted keys (`quant.double`) to values that replace the file's.
    """
    from vramplan.yaml_file import read_yaml  # YAML is slow to import, and a catalogue model needs none

    mapping = read_yaml(path)
    return scenarios_from_mapping({"name": path.stem, **mapping}, overrides, base=path.parent, where=str(path))


def scenarios_from_mapping(
    mapping: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    base: Path | None = None,
    where: str = "scenario",
) -> tuple[Scenario, ...]:
    """The scenarios that a mapping with the file's keys describes; relative paths start at `base`."""
    cells = expand_matrix(override(mapping, overrides or {}), where)
    return tuple(resolve_scenario(cell, base or Path(), where) for cell in cells)


def scenario_from_mapping(mapping: Mapping[str, Any], *, where: str = "scenario") -> Scenario:
    """The one scenario of a mapping without a matrix, such as a prediction prints."""
    if "matrix" in mapping:
        raise UsageError(f"{where}: one scenario is needed here, and this one has a matrix", hint="remove 'matrix'")
    return scenarios_from_mapping(mapping, where=where)[0]


def override(mapping: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with dotted keys replaced; a name such as `stack: script` becomes its mapping when a part is set."""
    result = dict(mapping)
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        place = result
        for key in parents:
            child = place.get(key, {})
            if key == "stack" and isinstance(child, str):
                child = {"base": child}
            if not isinstance(child, Mapping):
                raise UsageError(
                    f"cannot set '{dotted}': '{key}' is {child!r}, not a mapping", hint=f"set '{key}' itself"
                )
            place[key] = dict(child)
            place = place[key]
        place[last] = value
    return result


def expand_matrix(mapping: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """One mapping per combination of the lists, named after its values; without a matrix the mapping itself."""
    axes = mapping.get("matrix", {})
    plain = {key: value for key, value in mapping.items() if key != "matrix"}
    if not isinstance(axes, Mapping) or any(not isinstance(v, list) or not v for v in axes.values()):
        raise UsageError(
            f"{where}: matrix: {axes!r} is not a mapping of keys to lists", hint="matrix: {seq: [512, 1024]}"
        )
    size = 1
    for values in axes.values():
        size *= len(values)
    if size > LARGEST_MATRIX:
        raise UsageError(f"{where}: the matrix has {size:,} combinations", hint=f"at most {LARGEST_MATRIX:,}")
    for key, values in axes.items():
        named: set[str] = set()
        for value in values:
            if (name := _named(str(key), value)) in named:
                raise UsageError(f"{where}: matrix: {key} has {shown(value)} twice", hint="name every value once")
            named.add(name)
    for values in itertools.product(*axes.values()):
        cell = override(plain, dict(zip(map(str, axes), values, strict=True)))
        if axes:
            said = (_named(str(key), value) for key, value in zip(axes, values, strict=True))
            cell["name"] = "-".join((str(plain.get("name") or plain.get("model", "scenario")), *said))
        yield cell


def _named(key: str, value: object) -> str:
    """A key and its value for a name, as the command line has them; what is in a section stands by itself."""
    if isinstance(value, Mapping) and NAME_KEY in value:  # a model's configuration
        value = value[NAME_KEY]
    if isinstance(value, Mapping) and value:
        return "-".join(_named(str(inner), item) for inner, item in value.items())
    word = ",".join(map(in_yaml, value)) if isinstance(value, list) else in_yaml(value)
    return f"{key.split('.')[-1]}={word}"


def scenario_yaml(scenario: Scenario) -> str:
    """The scenario as a YAML file that reproduces it."""
    from vramplan.yaml_file import yaml_text

    return yaml_text(msgspec.to_builtins(scenario.to_mapping()))
