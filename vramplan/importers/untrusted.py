"""Limits for files that anybody may have written."""

from collections.abc import Mapping
from typing import Any

from vramplan.errors import UsageError

#: Values in one file: the longest of the libraries' own examples have a few hundred.
_MOST_VALUES = 20_000


def check_content(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """`content` with keys that are words; a file of endless or very many values (YAML's aliases) is a UsageError."""
    waiting: list[Any] = [content]
    values = 0
    while waiting:
        value = waiting.pop()
        values += 1
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
        if values + len(waiting) > _MOST_VALUES:
            raise UsageError(
                f"{where}: more than {_MOST_VALUES:,} values, aliases counted", hint="give a training configuration"
            )
    return {str(key): value for key, value in content.items()}
