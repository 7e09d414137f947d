"""`${key}` references as torchtune's configurations use them (OmegaConf's simplest kind), resolved or refused."""

import re
from collections.abc import Mapping
from typing import Any

from vramplan.errors import UsageError

_WHOLE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
#: A reference may name a reference; longer chains are a circle.
_DEEPEST = 20


def interpolated(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`content` with every `${key}` and `${section.key}` replaced by the value it names.

    A missing key, a circle and OmegaConf's resolvers (`${oc.env:HOME}`) are a UsageError.
    """
    return {key: _value(value, content, where, 0) for key, value in content.items()}


def _value(value: Any, root: Mapping[str, Any], where: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _value(item, root, where, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, root, where, depth) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if depth >= _DEEPEST:
        raise UsageError(f"{where}: '{value[:80]}' refers to itself", hint="write the value itself")
    whole = _WHOLE.fullmatch(value)
    if whole:
        return _value(_named(whole[1], root, value, where), root, where, depth + 1)
    text = _WHOLE.sub(lambda found: str(_value(_named(found[1], root, value, where), root, where, depth + 1)), value)
    if len(text) > 10_000:
        raise UsageError(f"{where}: '{value[:80]}' becomes too long", hint="write the value itself")
    if "${" in text:
        raise UsageError(
            f"{where}: '{value[:80]}' is more than a reference to a key",
            hint="only ${key} and ${section.key} are resolved: write the value itself",
        )
    return text


def _named(path: str, root: Mapping[str, Any], value: str, where: str) -> Any:
    place: Any = root
    for key in path.split("."):
        if not isinstance(place, Mapping) or key not in place:
            raise UsageError(
                f"{where}: '{value[:80]}' names no key of the file", hint=f"add '{path}', or write its value"
            )
        place = place[key]
    return place
