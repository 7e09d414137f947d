"""What a measurement and its child process tell each other, in JSON files. No torch."""

import json
from pathlib import Path
from typing import Any

import msgspec

from vramplan.errors import CannotRun, UsageError
from vramplan.files import write_whole
from vramplan.record import Device, Outcome


class Request(msgspec.Struct, frozen=True):
    """What the child is to measure."""

    scenario: dict[str, Any]
    """As a scenario file has it."""
    path: str
    """Where the model's checkpoint is, which a scenario file does not say; empty without one."""
    device: Device
    steps: int
    memory_limit: int | None


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """A record was made."""

    record: dict[str, Any]
    """As `Record.to_json` gives it."""


class Misasked(msgspec.Struct, frozen=True, tag="misasked"):
    """The request was refused: it asks for what cannot be."""

    message: str
    hint: str

    def error(self) -> UsageError:
        """The error that the child met."""
        return UsageError(self.message, hint=self.hint)


class Unable(msgspec.Struct, frozen=True, tag="unable"):
    """The request was refused: this machine cannot do it."""

    message: str
    hint: str

    def error(self) -> CannotRun:
        """The error that the child met."""
        return CannotRun(self.message, hint=self.hint)


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The run ended before anything was measured."""

    outcome: Outcome
    note: str


Answer = Measured | Misasked | Unable | Failed


def write_message(message: Request | Answer, file: Path) -> None:
    """Write it whole or not at all; with Python's json, which can write a loss that is infinite or no number."""
    write_whole(file, json.dumps(msgspec.to_builtins(message)))


def read_request(file: Path) -> Request:
    """The request that `write_message` wrote."""
    return msgspec.convert(json.loads(file.read_text(encoding="utf-8")), Request)


def read_answer(file: Path) -> Answer:
    """The answer that `write_message` wrote."""
    answer: Answer = msgspec.convert(json.loads(file.read_text(encoding="utf-8")), Answer)
    return answer
