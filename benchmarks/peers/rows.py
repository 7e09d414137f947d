"""The questions: published measurements, one per configuration, and what was measured."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy import public_config, public_scenario, published


@dataclass(frozen=True, slots=True)
class Row:
    """One measured configuration; repeats of it averaged."""

    id: str
    set: str
    """The source: `t4`, `rtx4080`."""
    model: str
    """Directory that holds the model's config.json."""
    config: dict[str, Any]
    parameters: int
    """The exact count, given to every tool that accepts one."""
    scenario: dict[str, Any]
    allocated: float
    """Measured peak of training, bytes."""
    reserved: float
    """Measured peak, bytes."""

    def question(self) -> dict[str, Any]:
        """What an adapter reads."""
        return {name: getattr(self, name) for name in ("id", "model", "config", "parameters", "scenario")}


def rows(directory: Path) -> list[Row]:
    """Every configuration with both peaks measured; their config.json files are laid out below `directory`."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in published():
        if row["fit"] == "exact" and {"train_peak_allocated", "train_peak_reserved"} <= row["measured"].keys():
            groups.setdefault(row["group"], []).append(row)
    return [_row(members, directory) for members in groups.values()]


def _row(members: list[dict[str, Any]], directory: Path) -> Row:
    scenario = members[0]["scenario"]
    config = public_config(scenario["model"])
    model = directory / scenario["model"]
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Row(
        id=members[0]["id"],
        set=members[0]["set"],
        model=str(model.resolve()),
        config=config,
        parameters=public_scenario(scenario).architecture.numel,
        scenario=scenario,
        allocated=statistics.fmean(member["measured"]["train_peak_allocated"] for member in members),
        reserved=statistics.fmean(member["measured"]["train_peak_reserved"] for member in members),
    )
