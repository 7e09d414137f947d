"""From what people type to scenarios: a scenario file or name, another trainer's file, a model, a directory."""

import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vramplan.catalog.models import catalog_names
from vramplan.errors import UsageError, nearest
from vramplan.files import read_object
from vramplan.scenario import Scenario
from vramplan.scenario_file import override, scenarios_from_mapping
from vramplan.scenario_schema import ScenarioKeys

if TYPE_CHECKING:
    from vramplan.importers import Imported

#: Where a scenario's name is looked up, the first directory that has it: the user's own, then the shipped ones.
SHIPPED = Path(__file__).parent / "scenarios"
_SUFFIXES = (".yaml", ".yml")
#: What peft calls the file of an adapter (utils/constants.py CONFIG_NAME).
ADAPTER = "adapter_config.json"
#: JSON files that make a directory a model or an adapter.
MODEL_FILES = ("config.json", ADAPTER)
_OPEN_FILES = (Path("/dev"), Path("/dev/fd"))


@dataclass(frozen=True, slots=True)
class Target:
    """The scenarios that a target stands for."""

    scenarios: tuple[Scenario, ...]
    is_matrix: bool
    """Whether a matrix spelled them out (even if only one), so that the answer is a list."""
    cell: Mapping[str, Any] = field(default_factory=dict)
    """The first values of a matrix's keys, as a mapping: an example of one scenario of it, for an error's hint."""
    origin: "Imported | None" = None
    """What another trainer's file said, where the target is one."""

    @property
    def lacks(self) -> Collection[str]:
        """Changes that save memory and that the trainer of the file cannot make: no advice to give."""
        return self.origin.lacks if self.origin else ()

    def single(self, what: str, *, hint: str = "fix the matrix's keys with flags, or give one scenario") -> Scenario:
        """The one scenario, where several will not do; `what` says what needs it."""
        if len(self.scenarios) > 1:
            raise UsageError(
                f"{what} needs one scenario, and this target has a matrix of {len(self.scenarios)}",
                hint=hint,
            )
        return self.scenarios[0]


def resolve(target: str, overrides: Mapping[str, Any] | None = None) -> Target:
    """The scenarios of `target`, with `overrides` (dotted keys) put over its own values.

    Looked up in this order: a scenario file (or another trainer's: its keys tell), a scenario's name, an adapter, a
    model (catalogue, path, hub). Only a hub id that is neither in the catalogue nor on the disk uses the network.
    """
    if not target.strip():
        raise UsageError("the target is empty", hint="give a scenario file, a model's name, or a directory")
    keys, there = overrides or {}, _on_disk(target)
    if (file := _scenario_file(target, there)) is not None:
        from vramplan.yaml_file import read_yaml  # slow to import, and a model's name needs none

        return _from_file(file, read_yaml(file), keys)
    if there is not None:
        if (printed := _printed(there)) is not None:
            return _from_file(there, printed, keys)
        if (adapter := _adapter_file(there)) is not None:
            hint = f"give the {ADAPTER} that peft wrote, or its directory"
            return _from_file(adapter, read_object(adapter, hint=hint), keys)
    elif target.endswith("/"):
        raise UsageError(f"no such directory: {target}", hint="give one that exists, or a scenario's or model's name")
    elif "/" not in target and target not in catalog_names():
        raise _unknown(target)
    return _expand({"model": target}, keys, base=Path(), where=target)


def _on_disk(target: str) -> Path | None:
    """The file or directory that a target is; None for a name, and for what may not be looked for."""
    try:
        path = Path(target).expanduser()
        return path if path.exists() else None
    except PermissionError:  # a directory on the way may not be searched: a name needs none of it
        return None
    except (OSError, RuntimeError, ValueError) as error:  # no such user's home, a name that no file can have
        raise _unknown(target) from error


def _from_file(file: Path, content: dict[str, Any], overrides: Mapping[str, Any]) -> Target:
    """The scenarios of a file's mapping, which may be another trainer's; a pipe gives it no name and no place."""
    from vramplan.importers import import_mapping, recognise

    format = recognise(content, str(file))
    if format is None:
        return _expand(_name(file) | content, overrides, base=_place(file), where=str(file))
    given = overrides.get("model")
    # `--set deepspeed=null`: a key of the trainer's, which means nothing where the file has none
    own = {*ScenarioKeys.__struct_fields__} - {*content}
    without = [key for key, value in overrides.items() if value is None and key.partition(".")[0] not in own]
    overrides = {key: value for key, value in overrides.items() if key not in without}
    found = import_mapping(content, format, where=str(file), base=_place(file), model=given, without=without)
    found = found.overridden(overrides)
    # What was typed is resolved from the working directory, as it is for a model.
    base = _place(file) if given is None else Path()
    target = _expand(_name(file) | dict(found.mapping), overrides, base=base, where=str(file))
    return replace(target, origin=found)


def _name(file: Path) -> dict[str, Any]:
    """The key `name` of a scenario that gives itself none; a pipe's scenario is named after its model."""
    if _is_stream(file):
        return {}
    return {"name": file.absolute().parent.name if file.name == ADAPTER else file.stem}


def _place(file: Path) -> Path:
    """Where relative paths in a file start."""
    return Path() if _is_stream(file) else file.parent


def _is_stream(path: Path) -> bool:
    """Whether a path is a pipe or a device, as `<(...)` is, or stands for an open file, as /dev/stdin does."""
    return path.exists() and not path.is_dir() and (not path.is_file() or path.parent in _OPEN_FILES)


def is_result_file(path: Path) -> bool:
    """Whether a file's name is that of a record or a prediction: any .json but a model's."""
    return path.suffix.lower() == ".json" and path.name not in MODEL_FILES


def _printed(path: Path) -> dict[str, Any] | None:
    """The scenario in a .json file: one as `--json` prints it, alone or in its prediction or record."""
    if path.suffix.lower() != ".json" or path.is_dir():
        return None
    content = read_object(path, where="model: ", hint="give a config.json, or a scenario as --json prints it")
    content = content["scenario"] if isinstance(content.get("scenario"), dict) else content
    return content if "model" in content and "model_type" not in content else None


def _adapter_file(path: Path) -> Path | None:
    """The adapter_config.json that a path is or holds; None for anything else."""
    if path.is_dir():
        return path / ADAPTER if (path / ADAPTER).is_file() else None
    return path if path.name == ADAPTER else None


def _expand(mapping: dict[str, Any], overrides: Mapping[str, Any], *, base: Path, where: str) -> Target:
    """What is typed wins over the file, and over its matrix."""
    if isinstance(axes := mapping.get("matrix"), Mapping):
        mapping = {**mapping, "matrix": dict(_axes_left(axes, overrides))}
    # `stack` before `stack.upcast`: a part is set in the whole that was asked for.
    ordered = dict(sorted(overrides.items(), key=lambda item: item[0].count(".")))
    mapping = override(mapping, ordered)
    scenarios = scenarios_from_mapping(mapping, base=base, where=where)
    axes = mapping.get("matrix", {})
    return Target(scenarios, "matrix" in mapping, override({}, {str(key): values[0] for key, values in axes.items()}))


def _axes_left(axes: Mapping[Any, Any], overrides: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """A matrix's axes without those that `overrides` name; in a section's values the parts that they name are set."""
    for key, values in axes.items():
        if _is_set(str(key), overrides):
            continue
        parts = {typed: value for typed, value in overrides.items() if typed.startswith(f"{key}.")}
        if parts and isinstance(values, list):
            changed = [override({key: value}, parts)[key] for value in values]
            values = [value for i, value in enumerate(changed) if value not in changed[:i]]
        yield key, values


def _is_set(key: str, overrides: Mapping[str, Any]) -> bool:
    """Whether `overrides` set a key, by itself or in its section: `stack: script` sets `stack.base`."""
    section, _, part = key.partition(".")
    whole = overrides.get(section)
    parts = {"base": whole} if section == "stack" and isinstance(whole, str) else whole
    return key in overrides or (isinstance(parts, Mapping) and part in parts)


def _scenario_file(target: str, there: Path | None) -> Path | None:
    """The YAML that a target is, by its suffix or as a pipe, or whose name it is."""
    if Path(target).suffix.lower() not in _SUFFIXES:
        return there if there is not None and _is_stream(there) else scenario_names().get(target)
    if there is not None and there.is_dir():
        raise UsageError(f"{there} is a directory, not a scenario file", hint="give the file, or a model's directory")
    return Path(target).expanduser()  # a missing one is refused where it is read


def scenario_names() -> dict[str, Path]:
    """The scenarios that can be given by name (`quickstart`, `tiny/llama-nf4`), ./scenarios over the shipped ones."""
    found: dict[str, Path] = {}
    for directory in (SHIPPED, Path("scenarios")):
        for path in _files_below(directory):
            if path.suffix.lower() in _SUFFIXES:
                found[path.relative_to(directory).with_suffix("").as_posix()] = path
    return dict(sorted(found.items()))


def _files_below(directory: Path) -> list[Path]:
    """Its YAML files; none where it may not be looked through."""
    try:
        return list(directory.rglob("*.y*ml"))
    except PermissionError:
        return []


def _unknown(target: str) -> UsageError:
    """The error for a word that is no path, no hub id and no known name, with the nearest model or scenario."""
    names = [*catalog_names(), *scenario_names()]
    shown = target if len(target) <= 100 else f"{target[:100]}..."
    return UsageError(
        f"unknown target '{shown}': no file, scenario or model of that name",
        hint=f"{nearest(shown, names)}`vramplan list models` and `vramplan list scenarios` show the names",
    )


def load_scenario(target: "str | os.PathLike[str]", overrides: Mapping[str, Any]) -> Scenario:
    """The one scenario of `target`; nested mappings in `overrides` change the keys they name and leave the others.

    What another trainer's file says and a scenario cannot is a Python warning, one each.
    """
    if not isinstance(target, str | os.PathLike):
        hint = 'name a file or a model, and the keys that differ: Scenario.load("llama-2-7b", batch=4)'
        raise UsageError(f"{target!r:.60} is no target", hint=hint)
    found = resolve(os.fspath(target), dict(_dotted(overrides)))
    for text in found.origin.warnings if found.origin else ():
        warnings.warn(f"{target}: {text}", stacklevel=3)
    such_as = ", ".join(f"{key}={value!r}" for key, value in found.cell.items())
    return found.single("Scenario.load", hint=f"give a value for each key of its matrix, such as {such_as}")


def _dotted(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in overrides.items():
        if isinstance(value, Mapping) and key not in ("model", "matrix"):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
