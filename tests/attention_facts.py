"""What PyTorch's CUDA build (torch 2.13.0, CUDA 13.0) answers about attention, by card.

Asked by `python -m benchmarks.nocard.facts`, on emulated cards: the build's own code chooses and allocates.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "facts" / "attention.json"
CARDS = ("t4", "v100-32gb", "a100-80gb", "rtx3090", "rtx4090", "h200", "b200", "rtx5090")


@cache
def _all() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def facts(card: str) -> dict[str, Any]:
    """Kernels chosen, workspaces of the efficient backward, parts of flash's forward."""
    return _all()[card]
