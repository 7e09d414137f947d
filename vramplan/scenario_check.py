"""Errors of a scenario file in its own words: which key, which value, what is allowed, what was probably meant."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import msgspec

from vramplan.errors import UsageError, nearest
from vramplan.scenario_schema import SECTIONS, ScenarioKeys
from vramplan.spelling import in_yaml

#: Keys of other tools that ask for more than one GPU, or for a way of sharing one model between several.
_SEVERAL_GPUS = frozenset(
    {"devices", "num_gpus", "n_gpu", "gpus", "world_size", "num_processes", "nproc_per_node", "nodes"}
    | {"tensor_parallel", "tensor_parallel_size", "pipeline_parallel", "data_parallel", "context_parallel"}
    | {"sequence_parallel", "deepspeed", "fsdp", "zero", "zero_stage"}
)


def check_keys(mapping: Mapping[str, Any], where: str) -> None:
    """Refuse unknown keys and values outside a closed list, each with the nearest allowed word."""
    _check_level(mapping, ScenarioKeys, "", where)
    for section, struct in SECTIONS.items():
        part = mapping.get(section)
        if isinstance(part, Mapping):
            _check_level(part, struct, f"{section}.", where)
    if "model" not in mapping:
        raise UsageError(
            f"{where}: no model", hint="add 'model: llama-2-7b' (`vramplan list models` shows the catalogue)"
        )


def _check_level(mapping: Mapping[str, Any], struct: type[msgspec.Struct], prefix: str, where: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in mapping.items():
        if key in _SEVERAL_GPUS:
            raise UsageError(
                f"{where}: '{prefix}{key}: {value}' asks for several GPUs; vramplan plans for one",
                hint=f"remove '{key}', and give the scenario of one device",
            )
        if key not in fields:
            allowed = ", ".join(prefix + name for name in fields)
            meant = (not prefix and _section_of(key)) or nearest(str(key), fields)
            hint = f"{meant}allowed: {allowed}"
            raise UsageError(f"{where}: unknown key '{prefix}{key}'", hint=hint)
        _check_words(value, fields[key], f"{where}: {prefix}{key}")


def _check_words(value: Any, annotation: Any, where: str) -> None:
    """Refuse a word, alone or in a list, that a closed list has not."""
    listed = isinstance(value, list)
    kind = _element(annotation) if listed else annotation
    words = [] if _takes_any_string(kind) else _words(kind)
    for word in value if listed else [value]:
        if words and isinstance(word, str) and word not in words:
            raise UsageError(
                f"{where}: unknown value '{word}'", hint=f"{nearest(word, words)}allowed: {', '.join(words)}"
            )


def _section_of(key: object) -> str:
    """`did you mean 'lora.rank'? ` for a key that stands in a section, else the empty string."""
    found = (name for name, struct in SECTIONS.items() if key in struct.__struct_fields__)
    section = next(found, None)
    return f"did you mean '{section}.{key}'? " if section else ""


def _words(annotation: Any) -> list[str]:
    """The words of a closed list in a type: members of an enum, strings of a Literal."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    parts = [word for part in get_args(annotation) if get_origin(part) is not list for word in _words(part)]
    return [*parts, "true", "false"] if parts and bool in get_args(annotation) else parts


def _element(annotation: Any) -> Any:
    """What the elements of a key's list are; the key's own type where it takes none."""
    lists = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is list]
    return get_args(lists[0])[0] if lists else annotation


def _takes_any_string(annotation: Any) -> bool:
    return annotation is str or str in get_args(annotation)


def convert(mapping: Mapping[str, Any], where: str) -> ScenarioKeys:
    """The typed keys of a scenario whose keys are known; wrong types and ranges are refused with the value named."""
    try:
        return msgspec.convert(dict(mapping), ScenarioKeys)
    except msgspec.ValidationError as error:
        raise _translated(error, mapping, where) from error


def _translated(error: msgspec.ValidationError, mapping: Mapping[str, Any], where: str) -> UsageError:
    text, _, path = str(error).partition(" - at `$")
    keys = re.findall(r"\.([A-Za-z_]+)", path)
    value: Any = mapping
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value
    if keys == ["torch"] and isinstance(value, float):
        return UsageError(f"{where}: torch: {value} is a number", hint=f"quote it: torch: '{value}'; 2.10 would be 2.1")
    wanted = re.sub(r"`([a-z | ]+)`", lambda kinds: _kinds(kinds[1]), text[:1].lower() + text[1:])
    if isinstance(value, float) and "a whole number" in wanted:
        wanted = f"write {int(value)}" if value.is_integer() else "a whole number is wanted"
    if keys == ["merge", "max_shard_size"] and isinstance(value, str):
        wanted = "a whole number and one of the units KB, MB, GB and TB, as transformers has it: 5GB, 500MB"
    return UsageError(f"{where}: {'.'.join(keys) or 'scenario'}: {_spelled(value)} is not allowed", hint=wanted)


def _spelled(value: Any) -> str:
    """A value as the file has it; text in quotes, for they tell '8' from 8."""
    return repr(value) if isinstance(value, str) else in_yaml(value)


#: msgspec's words for what a value is.
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


def _kinds(types: str) -> str:
    """`int | null` as people say it."""
    return " or ".join(_KINDS.get(word, word) for word in types.split(" | "))
