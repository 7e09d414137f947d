"""Reads numbers out of the JSON objects that commands print."""

from typing import Any

from vramplan.claims.claim import Output


def stored(prediction: Output, *components: str, phase: str = "load") -> int:
    """Bytes of some components at a phase's high-water mark."""
    entries: list[dict[str, Any]] = prediction["entries"]
    return sum(e["bytes"] for e in entries if e["phase"] == phase and e["component"] in components)


def base(prediction: Output) -> int:
    """Bytes of the base model as it is held: weights, block constants, everything unquantised."""
    return stored(prediction, "weights", "quant-state", "unquantized", phase=last(prediction))


def last(prediction: Output) -> str:
    """The last phase: loading's transients are gone."""
    return str(list(prediction["phases"])[-1])


def model(quantization: Output, *, double: bool, of: str = "nf4") -> dict[str, int]:
    """Bytes by part of a model in a format, from `vramplan quant MODEL`."""
    found: dict[str, int] = next(
        f["model"] for f in quantization["formats"] if (f["format"], f["double"]) == (of, double)
    )
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
