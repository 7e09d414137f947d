"""What every adapter does: read questions, ask its tool, print the answers. Standard library only.

An adapter is a thin script that runs in its tool's own environment. stdin: one JSON list of questions, each with
`id`, `model` (a directory that holds config.json), `config`, `parameters` (the exact count) and `scenario` (the
scenario file's keys). stdout: one JSON line per question, `{"id", "allocated", "reserved", "seconds"}` in bytes and
seconds, or `{"id", "refused"}`.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

GIB = 2**30
MIB = 2**20


def answer(ask: Callable[[dict[str, Any]], tuple[float, float]]) -> None:
    """Ask the tool every question twice, the second time by the clock; `ask` returns (allocated, reserved) bytes."""
    for question in json.load(sys.stdin):
        try:
            ask(question)
            began = time.perf_counter()
            allocated, reserved = ask(question)
            seconds = time.perf_counter() - began
        except Exception as error:  # what a tool refuses is part of the table, whatever it raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(json.dumps({"id": question["id"], "refused": reason}), flush=True)
            continue
        said = {"allocated": round(allocated), "reserved": round(reserved), "seconds": seconds}
        print(json.dumps({"id": question["id"], **said}), flush=True)


def flash_like(scenario: dict[str, Any]) -> bool:
    """Whether the attention kernel keeps no [seq, seq] matrix, for tools that ask just that."""
    return bool(scenario["attention"] != "eager")


def checkpointed(scenario: dict[str, Any]) -> bool:
    """Whether gradient checkpointing is on, of either kind."""
    return scenario["checkpointing"] is not False
