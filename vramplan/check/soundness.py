"""Whether a result that was read from a file can be true: values of the right kind, totals that its parts add up to."""

from collections.abc import Iterator, Mapping
from typing import Any

from vramplan.record import Prediction, Record, Result

_ENGINES = ("analytic", "trace", "measure")
_DEVICES = ("cuda", "cpu")


def wrong_types(result: Prediction | Record) -> Iterator[str]:
    """What JSON may hold and a result may not, in words."""
    if result.engine not in _ENGINES or result.device not in _DEVICES:
        yield f"engine {result.engine!r} on device {result.device!r} is unknown"
    if not isinstance(result.bits_per_parameter, int | float):
        yield f"bits_per_parameter: {result.bits_per_parameter!r} is not a number"
    yield from _wrong_sizes(result)
    yield from _wrong_mapping("libraries", result.libraries)
    if isinstance(result.libraries, Mapping):
        yield from (f"{k} {v!r} is not a version" for k, v in result.libraries.items() if not isinstance(v, str))
    yield from _wrong_record(result) if isinstance(result, Record) else _wrong_prediction(result)


def _wrong_sizes(result: Result) -> Iterator[str]:
    for entry in result.ledger.entries:
        if not _is_size(entry.bytes):
            yield f"{entry.component.value} in {entry.phase.value} holds {entry.bytes!r} bytes"
    for name, size in (("steady", result.ledger.steady), *result.reserved.items()):
        if not _is_size(size):
            yield f"{name}: {size!r} is not a number of bytes"


def _wrong_record(record: Record) -> Iterator[str]:
    yield from _wrong_mapping("environment", record.environment)
    yield from _wrong_mapping("timings", record.timings)
    if not isinstance(record.note, str):
        yield f"note: {record.note!r} is not text"


def _wrong_prediction(prediction: Prediction) -> Iterator[str]:
    if not prediction.ledger.entries:
        yield "a prediction without entries"
    verdict = prediction.verdict
    if verdict and not (_is_size(verdict.budget) and isinstance(verdict.fits, bool) and _is_int(verdict.margin)):
        yield f"{verdict} is no verdict"


def _wrong_mapping(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{name} is not an object"


def _is_size(value: object) -> bool:
    return _is_int(value) and value >= 0  # type: ignore[operator]  # an int, as was just seen


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
