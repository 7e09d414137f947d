"""Models by name (placeholder)."""

import json
from pathlib import Path
from typing import Any

_DIR = Path(__file__).parent / "models"


def catalog_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in _DIR.glob("*.json")))


def catalog_config(name: str) -> dict[str, Any]:
    return json.loads((_DIR / f"{name}.json").read_text())  # type: ignore[no-any-return]


def by_hub_id(repo: str) -> str | None:
    return None
