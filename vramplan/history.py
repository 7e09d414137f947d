"""How each scenario's memory moved from result to result, and the first one in which it did."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vramplan.check.findings import pair_json, row_json
from vramplan.check.gate import moved_most, outcome_of
from vramplan.check.items import Item, Key, read_file, result_files
from vramplan.check.limits import Allowance, Amount, mirrored
from vramplan.check.sameness import Change, different_fields, other_changes
from vramplan.compare import Pair, Row, compare
from vramplan.errors import UsageError
from vramplan.record import SCHEMA, Record


@dataclass(frozen=True)
class Move:
    """How a point differs from the last one that moved and has memory."""

    peak: Pair | None
    """None where either of the two has no memory."""
    most: Row | None
    """The component and phase that moved most; None when only the outcome or the scenario changed."""
    changes: tuple[Change, ...]
    """Versions, and keys of the model's configuration, that changed since the point right before."""
    fields: tuple[Change, ...]
    """Fields of the scenario that changed since then: the move is then an answer to another question."""
    outcome: str = ""
    """`ok -> oom`; empty when the outcome is the same."""


@dataclass(frozen=True)
class Point:
    """One result in its place in time."""

    item: Item
    date: datetime | None
    """None for a prediction, and for a record that does not say."""
    move: Move | None = None
    """None where nothing moved."""

    @property
    def peak(self) -> int | None:
        """Bytes allocated at the highest high-water mark; None for a run that ended before it held anything."""
        ledger = self.item.result.ledger
        return ledger.peak if ledger.entries else None


@dataclass(frozen=True)
class Series:
    """Everything known of one scenario on one engine and device, the oldest first."""

    key: Key
    points: tuple[Point, ...]

    @property
    def peaks(self) -> tuple[int, ...]:
        """The points' peaks, those left out that have none."""
        return tuple(point.peak for point in self.points if point.peak is not None)

    @property
    def moves(self) -> tuple[Point, ...]:
        """The points at which something moved."""
        return tuple(point for point in self.points if point.move)

    @property
    def first_moved(self) -> Point | None:
        """The first of them."""
        return next(iter(self.moves), None)


@dataclass(frozen=True)
class History:
    """Every series below a directory."""

    series: tuple[Series, ...]
    skipped: tuple[str, ...]
    """Files that hold no result, each with the reason."""

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: history`."""
        series = [_series_json(series) for series in self.series]
        return {"schema": SCHEMA, "kind": "history", "series": series, "skipped": list(self.skipped)}


#: Any byte is a move.
EXACT = Amount(0)


def history(path: Path, over: Allowance = EXACT) -> History:
    """The results of a directory as series; a change of `over` or less, in any phase and between steps, is no move.

    Results are in the order of their dates; those without one come first, in the order of their files' names.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist", hint="give a directory of records")
    items: dict[Key, list[Item]] = {}
    skipped: list[str] = []
    for file in result_files(path):
        try:
            for item in read_file(file):
                items.setdefault(item.key, []).append(item)
        except UsageError as error:
            skipped.append(error.message)
    if not items:
        reasons = "; ".join(skipped[:3]) or "it holds no .json file"
        raise UsageError(f"no record in '{path}'", hint=f"{reasons}; `vramplan measure --out` writes records")
    series = (Series(key, tuple(_points(found, over))) for key, found in sorted(items.items()))
    return History(tuple(series), tuple(skipped))


def _points(items: Iterable[Item], over: Allowance) -> Iterator[Point]:
    """Each point against the last one that moved, so that many small steps add up to a move in the end."""
    ordered = sorted(items, key=_when)
    anchor = before = ordered[0]
    yield Point(anchor, date_of(anchor))
    for item in ordered[1:]:
        move = _move(anchor, before, item, over)
        yield Point(item, date_of(item), move)
        anchor, before = (item if move and item.result.ledger.entries else anchor), item


def _when(item: Item) -> tuple[datetime, list[tuple[int, str]]]:
    date = date_of(item)
    numbers = re.split(r"(\d+)", item.source)  # run-9 before run-10
    natural = [(int(part), "") if part.isdecimal() else (-1, part) for part in numbers]
    return date or datetime.min.replace(tzinfo=UTC), natural


def date_of(item: Item) -> datetime | None:
    """When the result was measured, UTC where the record names no zone."""
    text = item.result.environment.get("date") if isinstance(item.result, Record) else None
    try:
        date = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return date.replace(tzinfo=date.tzinfo or UTC) if date else None


def _move(anchor: Item, before: Item, item: Item, over: Allowance) -> Move | None:
    outcomes = outcome_of(before), outcome_of(item)
    outcome = " -> ".join(word or "unknown" for word in outcomes) if outcomes[0] != outcomes[1] else ""
    fields = different_fields(before.result, item.result)
    changes = other_changes(before.result, item.result)
    a, b = anchor.result, item.result
    if not set(a.ledger.phases) & set(b.ledger.phases):
        return Move(None, None, changes, fields, outcome) if outcome or fields else None
    comparison = compare(a, b)
    pairs = [comparison.peak, comparison.steady, *(total.allocated for total in comparison.totals)]
    if isinstance(over, Amount):  # half a percent of a small component is nothing
        pairs += [row.pair for row in comparison.rows]
    if not (_beyond(pairs, over) or outcome or fields):
        return None
    return Move(comparison.peak, moved_most(comparison.rows), changes, fields, outcome)


def _beyond(pairs: Sequence[Pair], over: Allowance) -> bool:
    return any(not over.allows(way) for pair in pairs for way in (pair, mirrored(pair)))


def _series_json(series: Series) -> dict[str, Any]:
    first = series.first_moved
    return {
        **series.key._asdict(),
        "first_moved": first.item.source if first else None,
        "points": [_point_json(point) for point in series.points],
    }


def _point_json(point: Point) -> dict[str, Any]:
    result = point.item.result
    body: dict[str, Any] = {
        "source": point.item.source,
        "date": point.date.isoformat() if point.date else None,
        "outcome": outcome_of(point.item) or None,
        "peak": point.peak,
        "steady": result.ledger.steady if result.ledger.entries else None,
        "reserved": result.peak_reserved if result.reserved else None,
        "libraries": dict(result.libraries),
    }
    return body | {"move": _move_json(point.move) if point.move else None}


def _move_json(move: Move) -> dict[str, Any]:
    return {
        "peak": pair_json(move.peak) if move.peak else None,
        "moved_most": row_json(move.most) if move.most else None,
        "changes": [change.to_json() for change in move.changes],
        "different_fields": [change.to_json() for change in move.fields],
        "outcome": move.outcome or None,
    }
