"""The base model's own facts: configuration, quantisation, element types, what was upcast. Read off its parameters."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vramplan.element_types import type_name
from vramplan.errors import UsageError, unknown
from vramplan.scenario import ATTENTION, DType

if TYPE_CHECKING:
    from torch import Tensor, nn


def config_of(model: Any) -> dict[str, Any]:
    """config.json as the model would write it, with its name; what was quantised is read off the modules instead."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_json_string"):
        raise UsageError(
            f"a {type(model).__name__} has no transformers configuration",
            hint="give a model of transformers, such as AutoModelForCausalLM makes, or peft's wrapper around one",
        )
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for key in ("quantization_config", "architectures", "transformers_version"):
        found.pop(key, None)
    name = getattr(config, "_name_or_path", "") or found.get("model_type", "model")
    return {**found, "_name_or_path": str(name)}


def setting(value: object) -> str:
    """The text of a library's setting, which may be text or a member of an enumeration."""
    return str(getattr(value, "value", value))


def check_head(model: Any) -> None:
    """UsageError for a model whose outputs are not logits over a vocabulary, which are what a prediction counts."""
    if model.get_output_embeddings() is None:
        raise UsageError(
            f"a {type(model).__name__} has no head over a vocabulary: it is no causal language model",
            hint="give what AutoModelForCausalLM makes; classifiers and reward models are not predicted",
        )


def rewritten(model: "nn.Module") -> list[str]:
    """A warning where another package runs the layers: Unsloth (2026.10) replaces the classes' forward."""
    homes = {str(getattr(type(module).forward, "__module__", "")) for module in model.modules()}
    if not any(home.startswith("unsloth") for home in homes):
        return []
    return [
        "the model is Unsloth's: what its layers, loss and checkpoints save is not modelled; predicted as transformers'"
        " own, which takes more"
    ]


def quant_of(model: "nn.Module") -> dict[str, Any]:
    """The scenario's `quant` section, by the first layer that bitsandbytes made; type none without one."""
    quantizer = getattr(model, "hf_quantizer", None)
    method = setting(getattr(getattr(quantizer, "quantization_config", None), "quant_method", ""))
    if quantizer is not None and method != "bitsandbytes":
        raise unknown("quantisation", method, ("bitsandbytes",), where="the model")
    for layer in quantized_layers(model):
        weight: Any = layer.weight
        if type(layer).__name__ == "Linear8bitLt":
            return {"type": "int8", "double": False}
        return {
            "type": str(weight.quant_type),
            "double": bool(weight.compress_statistics),
            "block_size": int(weight.blocksize),
            "storage": type_name(weight.quant_storage),
        }
    return {"type": "none"}


def compute_dtype_of(model: "nn.Module", autocast: object) -> str:
    """bitsandbytes' own; without it what the products are made in: autocast's, else the weights'."""
    for layer in quantized_layers(model):
        chosen = getattr(layer, "compute_dtype", None)
        if chosen is not None:
            return type_name(chosen)
    return str(autocast) if autocast else _loaded_dtype(model)


def dtypes_of(model: "nn.Module") -> tuple[str, str, list[str]]:
    """The scenario's `dtype` (as loaded), its `stack.upcast`, and what of the parameters these two do not describe.

    Of the parameters that are not quantised, embeddings and head are one group and all others (norms, biases) another.
    """
    loaded = _loaded_dtype(model)
    vocabulary, others = _plain_dtypes(model)
    both = vocabulary | others
    if both <= {loaded}:
        return loaded, "none", []
    if both == {"float32"}:
        return loaded, "all", []
    if others == {"float32"} and vocabulary == {loaded}:
        return loaded, "norms", []
    upcast = "all" if vocabulary == {"float32"} else "norms" if others == {"float32"} else "none"
    found = ", ".join(sorted(both))
    return loaded, upcast, [f"parameters of several element types ({found}): predicted as {loaded}, upcast {upcast}"]


def attention_of(model: Any) -> tuple[str, list[str]]:
    """The scenario's `attention`, and a warning where the model's has no word in it."""
    name = str(getattr(model.config.get_text_config(), "_attn_implementation", "") or "sdpa")
    if name in ATTENTION:
        return name, []
    nearest = "flash_attention_2" if "flash" in name else "sdpa"
    return nearest, [f"attention '{name}' is not modelled: predicted as {nearest}"]


def _loaded_dtype(model: Any) -> str:
    """What the weights were loaded in: the type of unquantised linear weights; of a quantised model, the one that
    transformers remembers, since the preparation may have cast all that is left."""
    if next(quantized_layers(model), None) is None:
        weights = _linear_weights(model) or list(model.parameters())
        return type_name(weights[0].dtype)
    remembered = getattr(model.config, "dtype", None)
    return type_name(remembered) if remembered is not None else max(set.union(*_plain_dtypes(model)))


def _plain_dtypes(model: Any) -> tuple[set[str], set[str]]:
    """Element types of embeddings and head, and of everything else but the linear layers that may be quantised."""
    from vramplan.training.names import belongs_to_adapter, original, output_head

    ends = (original(model.get_input_embeddings()), output_head(model))
    vocabulary_ids = {id(weight) for part in ends if (weight := getattr(part, "weight", None)) is not None}
    quantized = {id(layer.weight) for layer in quantized_layers(model)}
    apart = quantized or {id(weight) for weight in _linear_weights(model)}
    vocabulary: set[str] = set()
    others: set[str] = set()
    for name, parameter in model.named_parameters():
        if belongs_to_adapter(name) or id(parameter) in apart:
            continue
        (vocabulary if id(parameter) in vocabulary_ids else others).add(type_name(parameter.dtype))
    return vocabulary, others


def _linear_weights(model: Any) -> "list[Tensor]":
    """Weights of the base's linear layers: in a model that is not quantised they are what `dtype` says."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from vramplan.training.names import belongs_to_adapter, output_head

    head = output_head(model)
    named = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))
    return [module.weight for path, module in named if module is not head and not belongs_to_adapter(path)]


def quantized_layers(model: "nn.Module") -> Iterator[Any]:
    """The layers that bitsandbytes made."""
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes.nn"):
            yield module


def check_dtype(name: str) -> str:
    """`name`, when a scenario knows it."""
    if name not in [*DType]:
        raise unknown("element type", name, DType, where="the model's weights")
    return name
