"""The answer of `vramplan quant`: formats side by side, by bits, by a model's bytes, by what they do to weights."""

from dataclasses import dataclass
from typing import Any

from vramplan.quant.errors import Tried, try_formats
from vramplan.quant.formats import Baseline, Format, ModelSize, baselines, model_sizes
from vramplan.quant.weights import Source
from vramplan.record import SCHEMA
from vramplan.scenario import Scenario


@dataclass(frozen=True)
class Study:
    """Some formats compared."""

    formats: tuple[Format, ...]
    model: str
    """Name of the model whose sizes are told; empty without one."""
    sizes: tuple[ModelSize, ...]
    """One per format; empty without a model."""
    baselines: tuple[Baseline, ...]
    """The model unquantised; empty without a model."""
    weights: str
    """What the formats were tried on; empty when on nothing."""
    tried: tuple[Tried, ...]
    """One per format; empty when tried on nothing."""

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: quantization`."""
        rows = []
        for i, made in enumerate(self.formats):
            row = _format_json(made)
            if self.sizes:
                row["model"] = self.sizes[i].to_json()
            if self.tried:
                row["errors"] = self.tried[i].to_json()
            rows.append(row)
        body: dict[str, Any] = {"schema": SCHEMA, "kind": "quantization", "formats": rows}
        if self.model:
            body["model"] = self.model
            body["unquantized"] = {b.name: {"matrices": b.matrices, "model": b.total} for b in self.baselines}
        return body | ({"weights": self.weights} if self.weights else {})


def study(formats: tuple[Format, ...], scenario: Scenario | None, source: Source | None) -> Study:
    """The formats on a model's bytes and on weights, each where given. Weights need torch and bitsandbytes."""
    return Study(
        formats=formats,
        model=scenario.model.name if scenario is not None else "",
        sizes=model_sizes(scenario, formats) if scenario is not None else (),
        baselines=baselines(scenario) if scenario is not None else (),
        weights=source.name if source is not None else "",
        tried=try_formats(source, formats) if source is not None else (),
    )


def _format_json(made: Format) -> dict[str, Any]:
    bits = made.bits
    body: dict[str, Any] = {"format": made.kind.value, "double": made.double}
    if made.block:
        body["block_size"] = made.block
    body["bits_per_parameter"] = {
        "packed": bits.packed,
        "first_level": bits.first,
        "second_level": bits.second,
        "total": bits.per_parameter,
    }
    return body | {"levels": list(made.kind.levels)}
