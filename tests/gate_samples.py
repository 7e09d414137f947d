"""Records with faults put into them, for the tests of the gate."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from samples import PREDICTION, RECORD

from vramplan.check import Item
from vramplan.ledger import Component, Entry, Ledger, Phase
from vramplan.record import Prediction, Record, Result, save_result
from vramplan.scenario_file import scenario_from_mapping

AnyResult = TypeVar("AnyResult", bound=Result)
CUDA = replace(
    RECORD,
    device="cuda",
    reserved=PREDICTION.reserved,
    environment={"device": "cuda", "gpu": "Tesla T4", "driver": "550.54", "python": "3.11.7"},
)


UPGRADED = {"torch": "2.14.0+cpu", "peft": "0.22.0"}


def named(result: Record, name: str) -> Record:
    return replace(result, scenario=scenario_from_mapping(result.scenario.to_mapping() | {"name": name}))


def changed(result: Record, **keys: Any) -> Record:
    """The same record of a scenario with other keys."""
    return replace(result, scenario=scenario_from_mapping(result.scenario.to_mapping() | keys))


def with_entries(result: AnyResult, new: Callable[[Entry], int]) -> AnyResult:
    """The result with other bytes in its entries; those of 0 bytes are left out."""
    entries = tuple(replace(entry, bytes=new(entry)) for entry in result.ledger.entries)
    return replace(result, ledger=Ledger(tuple(e for e in entries if e.bytes), result.ledger.steady))


def grown(result: AnyResult, phase: Phase | None, component: Component, size: int) -> AnyResult:
    """`size` bytes more of a component in one phase, or in all."""
    return with_entries(
        result, lambda e: e.bytes + (size if e.component is component and phase in (None, e.phase) else 0)
    )


def items(results: Iterable[Result]) -> list[Item]:
    return [Item(result, f"file-{i}") for i, result in enumerate(results) if isinstance(result, (Prediction, Record))]


def save_sides(folder: Path, new: Iterable[Record], baseline: Iterable[Record]) -> tuple[str, str]:
    """Writes new and baseline results as directories; their names come back."""
    for side, results in (("new", new), ("baseline", baseline)):
        (folder / side).mkdir()
        for i, result in enumerate(results):
            save_result(result, folder / side / f"{i}.json")
    return str(folder / "new"), str(folder / "baseline")
