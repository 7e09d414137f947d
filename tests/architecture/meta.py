"""The real models of transformers, built on the meta device: what the table is checked against."""

from collections.abc import Mapping
from typing import Any

import pytest

from vramplan.architecture import Architecture

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

Shapes = list[tuple[str, tuple[int, ...]]]


def build(config: Mapping[str, Any]) -> Any:
    """The causal language model that transformers makes of a config.json, without memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = dict(config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(keys.pop("model_type"), **keys))


def real_parameters(model: Any) -> Shapes:
    """Names and shapes in the model's own order; `named_parameters` gives a tied weight once."""
    return [(path, tuple(parameter.shape)) for path, parameter in model.named_parameters()]


def real_buffers(model: Any) -> Shapes:
    return [(path, tuple(buffer.shape)) for path, buffer in model.named_buffers()]


def table_parameters(architecture: Architecture) -> Shapes:
    return [(weight.path, weight.shape) for weight in architecture.parameters()]


def table_buffers(architecture: Architecture) -> Shapes:
    return [(weight.path, weight.shape) for weight in architecture.buffers]


def shallow(config: Mapping[str, Any], layers: int = 4) -> dict[str, Any]:
    """The same model with a few layers; four are enough for every kind of layer in the catalogue but Gemma 3's."""
    changed = dict(config)
    changed["n_layer" if "n_layer" in changed else "num_hidden_layers"] = layers
    if "layer_types" in changed:
        changed["layer_types"] = changed["layer_types"][:layers]
    return changed
