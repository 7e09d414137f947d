"""Models that also see or hear: which part of their configuration is the language model that can be planned."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vramplan.architecture.from_transformers import building, installed
from vramplan.element_types import type_name

#: Keys of a configuration that holds several models.
_PARTS = ("text_config", "vision_config", "audio_config")
#: Language models under a model_type of their own, that have every parameter of one that AutoModelForCausalLM builds
#: (transformers 5.17; their rotary positions have three axes, which is a few rows of cosines more).
_SAME_PARAMETERS = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}


class Part(NamedTuple):
    """What is planned of a model that holds several."""

    config: dict[str, Any] | None
    """The language model's own configuration; None where transformers finds it in the whole by itself."""
    kind: str
    """model_type of the language model."""


def language_part(config: Mapping[str, Any], name: str) -> Part | None:
    """The language model inside a configuration; None where AutoModelForCausalLM builds all of it, or nothing.

    transformers is asked, and only about configurations with several parts.
    """
    if not any(isinstance(config.get(key), Mapping) for key in _PARTS) or not installed():
        return None
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

    family = config.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        return None
    kind = CONFIG_MAPPING[family]
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        # auto_factory.py from_config: a class that is made of the text_config gets that part
        alone = MODEL_FOR_CAUSAL_LM_MAPPING[kind].config_class is kind.sub_configs.get("text_config")
        return Part(None, family) if alone else None
    with building(family, name):
        whole = kind.from_dict({key: value for key, value in config.items() if key != "quantization_config"})
    text = whole.get_text_config()
    like = _SAME_PARAMETERS.get(text.model_type, text.model_type)
    if like not in CONFIG_MAPPING or CONFIG_MAPPING[like] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    neutral = PreTrainedConfig().to_dict()
    own = {key: value for key, value in text.to_dict().items() if key not in neutral}
    return Part({**own, **_of_the_whole(config, whole, text), "model_type": like}, like)


def _of_the_whole(config: Mapping[str, Any], whole: Any, text: Any) -> dict[str, Any]:
    """What the whole says of its language model: its weights' type, their quantisation, whether the head is tied."""
    stated = text.dtype or config.get("dtype") or config.get("torch_dtype")
    tied = getattr(text, "tie_word_embeddings", whole.tie_word_embeddings)
    found: dict[str, Any] = {"tie_word_embeddings": config.get("tie_word_embeddings", tied)}
    if stated:
        found["dtype"] = type_name(stated)
    if "quantization_config" in config:
        found["quantization_config"] = config["quantization_config"]
    return found
