"""Numbers in sentences: a command's JSON answer, an expression over it, and the text that its value is written as."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from vramplan import cli
from vramplan.units import GIB, MIB

#: What a unit divides by. Everything else is written as it is.
UNITS = {
    "GiB": GIB,
    "MiB": MIB,
    "GB": 10**9,
    "MB": 10**6,
    "bytes": 1,
    "%": 0.01,
    "million": 10**6,
    "billion": 10**9,
    "": 1,
}
NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"


class Facts:
    """A JSON object with its keys as attributes; entries by phase and component."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __getattr__(self, key: str) -> Any:
        if not isinstance(self._values, dict) or key not in self._values:
            raise AttributeError(f"no key '{key}' in the answer")
        return _wrapped(self._values[key])

    def __getitem__(self, place: int) -> Any:
        return _wrapped(self._values[place])

    def at(self, phase: str, component: str) -> int:
        """Bytes of a component in a phase of a prediction, 0 where it has none."""
        known = list(self._values["phases"])
        if phase not in known:
            raise KeyError(f"no phase '{phase}': {', '.join(known)}")
        found = [e for e in self._values["entries"] if (e["phase"], e["component"]) == (phase, component)]
        return sum(entry["bytes"] for entry in found)

    def __repr__(self) -> str:
        return f"Facts({self._values!r})"


def _wrapped(value: Any) -> Any:
    return Facts(value) if isinstance(value, (dict, list)) else value


def ask(command: str) -> Facts:
    """The answer of `vramplan ... --json`."""
    program, *arguments = shlex.split(command)
    if program != "vramplan" or "--json" not in arguments:
        raise ValueError(f"facts come from vramplan with --json, not from: {command}")
    return Facts(json.loads(cli.answer(arguments).text))


def evaluate(expression: str, facts: Mapping[str, Facts]) -> Any:
    """The value of a marker's expression: arithmetic and comparisons over the page's facts."""
    return eval(expression, {"__builtins__": {}, "max": max, "min": min, "abs": abs, "round": round}, dict(facts))


def written(value: Any, like: str) -> str:
    """`value` as a sentence says it: in the unit, with the decimals and the sign of the number that stands there."""
    found = re.fullmatch(rf"({NUMBER})( ?)([A-Za-z%]*)", like)
    if found is None or found[3] not in UNITS:
        raise ValueError(f"not a number with a known unit: {like}")
    if isinstance(value, (bool, str, Facts)):
        raise ValueError(f"the marker of '{like}' gives no number: {value!r}")
    decimals = len(found[1].partition(".")[2])
    sign = "+" if found[1].startswith("+") else ""
    return f"{value / UNITS[found[3]]:{sign},.{decimals}f}{found[2]}{found[3]}"
