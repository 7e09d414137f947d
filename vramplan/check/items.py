"""Reading the two sides of a check: files and directories of records and predictions, each known by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vramplan.check.soundness import contradictions
from vramplan.errors import UsageError
from vramplan.files import read_json, user_path
from vramplan.record import Prediction, Record, result_from_json
from vramplan.targets import MODEL_FILES, is_result_file

#: The hint where records are looked for and none is found.
WRITERS = "records are written by `vramplan measure --out` and `vramplan predict --json`"


class Key(NamedTuple):
    """What makes two results the same question: scenario, engine and device."""

    scenario: str
    engine: str
    device: str

    def __str__(self) -> str:
        how = "measured" if self.engine == "measure" else self.engine
        return f"{printable(self.scenario)} ({how}, {self.device})"


def printable(text: str) -> str:
    """`text` on one line without control characters: what a file holds may not move a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.splitlines()))


@dataclass(frozen=True)
class Item:
    """One result of a side, and where it came from."""

    result: Prediction | Record
    source: str
    """Where it came from, in words: the file and the place in it, or the target that was predicted."""
    file: Path | None = None
    """None when it was predicted just now."""
    in_array: bool = False
    """Whether the file holds an array of results."""
    faults: tuple[str, ...] = ()
    """Where the file's totals are not the sums of its parts."""

    @property
    def key(self) -> Key:
        """What it is matched by."""
        return Key(self.result.scenario.name, self.result.engine, self.result.device)


def holds_results(text: str) -> bool:
    """Whether a word of the command line names a file or directory of results, rather than a scenario or model."""
    path = user_path(text)
    if path.is_dir():
        return not any((path / name).exists() for name in MODEL_FILES)
    return is_result_file(path)


def read_items(path: Path) -> tuple[Item, ...]:
    """Every record and prediction of a file (one, or an array of them) or of all .json files below a directory.

    A missing, empty or broken file, or a directory without any, is a UsageError that names it.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist", hint=WRITERS)
    items = tuple(item for file in result_files(path) for item in read_file(file))
    if not items:
        raise UsageError(f"{path} holds no record and no prediction", hint=WRITERS)
    return items


def result_files(path: Path) -> list[Path]:
    """`path` itself, or the .json files below it that are not hidden, sorted."""
    if not path.is_dir():
        return [path]
    files = path.rglob("*.json")
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts))


def read_file(file: Path) -> tuple[Item, ...]:
    """The results in one file: an object, or an array of them as a matrix prints it."""
    body = read_json(file, hint=WRITERS)
    if not isinstance(body, list):
        return (_item(body, str(file), file),)
    return tuple(_item(part, f"{file}[{i}]", file, in_array=True) for i, part in enumerate(body))


def by_key(items: Iterable[Item], side: str) -> dict[Key, Item]:
    """The items under their keys; two of the same key are a UsageError naming both files."""
    found: dict[Key, Item] = {}
    for item in items:
        other = found.setdefault(item.key, item)
        if other is not item:
            raise UsageError(
                f"{side}: {item.key} is there twice: in {other.source} and in {item.source}",
                hint="give each scenario a name of its own, or keep one file of the two",
            )
    return found


def _item(body: Any, source: str, file: Path, *, in_array: bool = False) -> Item:
    if not isinstance(body, dict) or body.get("kind") not in ("prediction", "measurement"):
        kind = body.get("kind", "no kind") if isinstance(body, dict) else type(body).__name__
        raise UsageError(f"{source} is not a record or prediction: {kind}", hint=WRITERS)
    result = result_from_json(body, source=source)
    return Item(result, source, file, in_array, tuple(contradictions(body, result)))
