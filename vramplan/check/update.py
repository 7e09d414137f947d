"""Rewriting a baseline on purpose: which file gets which result, all files written before the first is replaced."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from vramplan.check.findings import Case, Status
from vramplan.check.gate import match
from vramplan.check.items import Item, Key, by_key
from vramplan.check.limits import DEFAULT_LIMITS
from vramplan.errors import UsageError
from vramplan.files import write_together
from vramplan.record import SCHEMA


class Action(StrEnum):
    """What happens to one result of the baseline."""

    ADDED = "added"
    REPLACED = "replaced"
    REMOVED = "removed"
    KEPT = "kept"  # not among the new results
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Update:
    """What a rewrite of the baseline does."""

    path: Path
    actions: tuple[tuple[Action, Case], ...]

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: baseline-update`."""
        actions = [{"action": action.value} | case.key._asdict() for action, case in self.actions]
        return {"schema": SCHEMA, "kind": "baseline-update", "baseline": str(self.path), "actions": actions}


def update_baseline(path: Path, new: Iterable[Item], baseline: Iterable[Item], *, remove_vanished: bool) -> Update:
    """Put the new results in the baseline's place, each in the file that holds it; what changed comes back.

    Results that are not among the new ones stay, unless `remove_vanished`. Each file is replaced whole or not at all.
    """
    ours, theirs = by_key(new, "new results"), by_key(baseline, "baseline")
    cases = match(ours, theirs, DEFAULT_LIMITS)
    files: dict[Path, list[Item]] = {}
    for item in theirs.values():
        files.setdefault(_file(item), []).append(item)
    before = {file: list(items) for file, items in files.items()}
    actions = tuple((_apply(case, path, files, remove_vanished), case) for case in cases)
    try:
        _write({file: items for file, items in files.items() if items != before.get(file)})
    except OSError as error:
        raise UsageError(
            f"cannot write the baseline {error.filename or path}: {error.strerror}", hint="name a place you may write"
        ) from error
    return Update(path, actions)


def _file(item: Item) -> Path:
    assert item.file is not None, "a baseline is read from files"
    return item.file


def _apply(case: Case, path: Path, files: dict[Path, list[Item]], remove_vanished: bool) -> Action:
    """Change the planned contents of the files by one case."""
    old, new = case.baseline, case.new
    if new is None and old is not None:
        if not remove_vanished:
            return Action.KEPT
        files[_file(old)].remove(old)
        return Action.REMOVED
    assert new is not None, "a case has at least one side"
    if old is None:
        files.setdefault(_place(case.key, path, files), []).append(new)
        return Action.ADDED
    if case.status is Status.EQUAL and old.result.to_json() == new.result.to_json() and not old.faults:
        return Action.UNCHANGED
    items = files[_file(old)]
    items[items.index(old)] = Item(new.result, new.source, old.file, old.in_array)
    return Action.REPLACED


def _place(key: Key, path: Path, taken: Mapping[Path, object]) -> Path:
    """The file for a result that the baseline did not have."""
    if path.is_file() or (not path.exists() and path.suffix == ".json"):
        return path
    stem = re.sub(r"[^\w.=+-]+", "-", key.scenario)[:150].strip(".-") or "scenario"
    long = f"{stem}-{key.engine}-{key.device}"
    names = [stem, long, *(f"{long}-{i}" for i in range(2, len(taken) + 3))]
    candidates = (path / f"{name}.json" for name in names if name != "config")  # config.json is a model's file
    return next(file for file in candidates if file not in taken and not file.exists())


def _write(files: Mapping[Path, list[Item]]) -> None:
    """Put all files in their places together; emptied ones go last."""
    write_together({file: _text(items) for file, items in files.items() if items})
    for file, items in files.items():
        if not items:
            file.unlink()


def _text(items: list[Item]) -> str:
    """A file's content: one result, or an array of them."""
    bodies = [item.result.to_json() for item in items]
    array = len(bodies) > 1 or items[0].in_array
    return json.dumps(bodies if array else bodies[0], indent=1) + "\n"
