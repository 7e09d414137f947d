"""Reads numbers out of the JSON objects that commands print."""

from typing import Any

from vramplan.claims.claim import Output


def kept(prediction: Output, *components: str) -> int:
    """Bytes of some components at the last phase's high-water mark: loading's transients are gone."""
    entries: list[dict[str, Any]] = prediction["entries"]
    last = list(prediction["phases"])[-1]
    return sum(e["bytes"] for e in entries if e["phase"] == last and e["component"] in components)


def base(prediction: Output) -> int:
    """Bytes of the base model as it is held: weights, block constants, everything unquantised."""
    return kept(prediction, "weights", "quant-state", "unquantized")


def model(quantization: Output, *, double: bool) -> dict[str, int]:
    """Bytes by part of a model in nf4, from `vramplan quant MODEL`."""
    formats = (f for f in quantization["formats"] if f["format"] == "nf4")
    found: dict[str, int] = next(f["model"] for f in formats if f["double"] is double)
    return found


def choice(inspection: Output, name: str, rank: int) -> dict[str, Any]:
    """What a choice of targets costs, from `vramplan inspect MODEL`."""
    found: dict[str, Any] = next(c for c in inspection["choices"] if (c["name"], c["rank"]) == (name, rank))
    return found


def gb(amount: float) -> str:
    """Decimal gigabytes, as articles count."""
    return f"{amount / 10**9:.2f} GB"


def mb(amount: float) -> str:
    """Decimal megabytes, as articles count."""
    return f"{amount / 10**6:.1f} MB"
