"""What an importer answers: the scenario's keys, and for every line of the other file what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vramplan.spelling import in_yaml

#: Why most of the keys that are ignored do not matter.
HARMLESS = "changes no memory of a step"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table that people see: the other file's key and what became of it."""

    key: str
    """The other file's key or keys (`load_in_4bit, bnb_4bit_quant_type`); empty for what the file does not say."""
    value: str
    """As the file writes it; empty for what it does not say."""
    ours: str = ""
    """The scenario's dotted key; empty for what is ignored."""
    becomes: str = ""
    """The scenario's value, as YAML spells it."""
    note: str = ""
    """Where a default comes from, or why a key does not matter."""

    def to_json(self) -> dict[str, str]:
        """The row's fields that say something."""
        fields = {name: getattr(self, name) for name in Row.__slots__}
        return {name: text for name, text in fields.items() if text}


@dataclass(frozen=True, slots=True)
class Warned:
    """A sentence about memory that the scenario cannot express, or that nobody knows."""

    text: str
    ours: str = ""
    """The scenario's key that settles it when somebody sets that key; empty when none does."""
    above: int = 0
    """Bytes by which the prediction may be too high for it, where they are known."""
    above_token: int = 0
    """The same for each token of a micro-batch."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Another trainer's configuration as a scenario, with the origin of every value."""

    format: str
    """`TRL`, `axolotl`, `LLaMA-Factory`, `torchtune` or `peft adapter`."""
    library: str
    """The version whose keys, defaults and behaviour were read: `trl 1.16.0`."""
    where: str
    """The file."""
    mapping: Mapping[str, Any]
    """The keys of a scenario file."""
    read: tuple[Row, ...]
    assumed: tuple[Row, ...]
    ignored: tuple[Row, ...]
    warned: tuple[Warned, ...]
    lacks: frozenset[str] = frozenset()
    """Changes that save memory and that nothing in the file's format can ask for: no advice to give."""
    denied: frozenset[str] = frozenset()
    """Warnings of a prediction of the scenario that are not true of the file."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences that belong into the prediction's warnings."""
        return tuple(warned.text for warned in self.warned)

    def above(self, tokens: int) -> int:
        """Bytes by which a prediction of `tokens` in a micro-batch may be too high for what the file asks beside it."""
        return sum(warned.above + warned.above_token * tokens for warned in self.warned)

    def overridden(self, keys: Mapping[str, Any]) -> "Imported":
        """The same where `keys` (dotted, as typed on the command line) replace what the file says."""
        return replace(
            self,
            read=tuple(_replaced(row, keys) for row in self.read),
            assumed=tuple(row for row in self.assumed if not _covers(keys, row.ours)),
            warned=tuple(warned for warned in self.warned if not _covers(keys, warned.ours)),
        )

    def to_json(self) -> dict[str, Any]:
        """The `import` object of `predict --json`."""
        return {
            "format": self.format,
            "library": self.library,
            "read": [row.to_json() for row in self.read],
            "assumed": [row.to_json() for row in self.assumed],
            "ignored": [row.to_json() for row in self.ignored],
            "warnings": list(self.warnings),
        }


def _covers(keys: Mapping[str, Any], ours: str) -> bool:
    return ours in keys or ours.partition(".")[0] in keys


def _replaced(row: Row, keys: Mapping[str, Any]) -> Row:
    if not _covers(keys, row.ours):
        return row
    return replace(row, becomes=spelled(keys.get(row.ours, row.becomes)), note="replaced by what was typed")


def spelled(value: object) -> str:
    """A value as YAML spells it on one line, long ones cut."""
    text = in_yaml(value)
    return text if len(text) <= 72 else text[:69] + "..."
