"""Models by name: their config.json facts, and where each fact was found (models/INDEX.csv)."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vramplan.errors import unknown

# `importlib.resources` costs 15 ms of import time, a tenth of what a prediction may take.
_FOLDER = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """Where a catalogue model's configuration comes from, and how many parameters it should have."""

    name: str
    hub_id: str
    """Hugging Face repository that the configuration describes."""
    source: str
    """Repository, file and commit that each fact was copied from."""
    parameters: int
    """Parameters of the causal language model that the configuration describes, tied weights once."""
    published: int | None
    """Parameters that the publisher states, where an exact number was found; `notes` says why it may differ."""
    notes: str


@cache
def catalog_names() -> tuple[str, ...]:
    """Every catalogue model, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def catalog_config(name: str) -> dict[str, Any]:
    """A model's config.json: the keys that decide shapes and behaviour."""
    if name not in catalog_names():
        raise unknown("model", name, catalog_names(), where="the catalogue")
    config: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return config


def by_hub_id(repo: str) -> str | None:
    """Name of the catalogue model that a Hugging Face id means (case ignored); None when it is not in the catalogue."""
    return next((entry.name for entry in catalog_entries().values() if entry.hub_id.lower() == repo.lower()), None)


@cache
def catalog_entries() -> Mapping[str, CatalogEntry]:
    """Every catalogue model's provenance by name."""
    with (_FOLDER / "INDEX.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return MappingProxyType({row["slug"]: _entry(row) for row in rows})


def _entry(row: dict[str, str]) -> CatalogEntry:
    published = row["published_params"]
    return CatalogEntry(
        name=row["slug"],
        hub_id=row["hf_id"],
        source=row["source"],
        parameters=int(row["param_count_computed"]),
        published=int(published) if published else None,
        notes=row["notes"],
    )
