"""Placeholder until the families are written."""

from typing import Any

from vramplan.architecture.model import Architecture


def read_architecture(config: dict[str, Any], *, name: str) -> Architecture:
    raise NotImplementedError
