"""Whether a result that was read from a file can be true: totals that its parts add up to."""

from collections.abc import Iterator, Mapping
from typing import Any

from vramplan.record import Prediction, Record


def contradictions(body: Mapping[str, Any], result: Prediction | Record) -> Iterator[str]:
    """Totals that the file states and its entries do not add up to: somebody changed one and not the other."""
    sums = result.to_json()
    for phase, totals in sums["phases"].items():
        yield from _differing(phase, body["phases"].get(phase), totals)
    if "peak" in sums:
        yield from _differing("peak", body.get("peak"), sums["peak"])


def _differing(name: str, stated: object, sums: Mapping[str, Any]) -> Iterator[str]:
    given = stated if isinstance(stated, dict) else {}
    for key, value in sums.items():
        if given.get(key) != value:
            yield f"{name}: the entries' {key} is {value}, not {given.get(key)}"
