"""Values of scenarios and configurations on one line: as YAML spells them, and as people say them."""

from collections.abc import Mapping


def in_yaml(value: object) -> str:
    """A value as YAML spells it, text without quotes: `[true, null, x]`."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {in_yaml(item)}" for key, item in value.items()) + "}"
    return " ".join(str(value).split())


def shown(value: object) -> str:
    """A value as a sentence has it: `q_proj+v_proj`, `true`; `none` for what is not there or empty."""
    if value is None:
        return "none"
    return ("+".join(map(in_yaml, value)) or "none") if isinstance(value, list | tuple) else in_yaml(value)
