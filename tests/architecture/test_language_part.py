"""Models of several parts: the language model's parameters are those that transformers makes in the whole."""

from typing import Any

import pytest

from vramplan.architecture import read_architecture
from vramplan.architecture.language_part import _SAME_PARAMETERS, language_part

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
WHOLES: dict[str, dict[str, Any]] = {
    "mistral3": {
        "text_config": {"model_type": "mistral", **SMALL, "head_dim": 16},
        "vision_config": {"model_type": "pixtral", **_VISION, "num_hidden_layers": 1},
    },
    "llava": {
        "text_config": {"model_type": "llama", **SMALL},
        "vision_config": {"model_type": "clip_vision_model", **_VISION, "num_hidden_layers": 1},
    },
    "paligemma": {
        "text_config": {"model_type": "gemma", **SMALL, "head_dim": 16},
        "vision_config": {"model_type": "siglip_vision_model", **_VISION, "num_hidden_layers": 1},
    },
    # as Qwen publishes it: the language model's keys are the whole's
    "qwen2_5_vl": {
        **SMALL,
        "tie_word_embeddings": True,
        "vision_config": {"depth": 1, "hidden_size": 32, "num_heads": 2},
    },
}


@pytest.mark.parametrize("family", WHOLES)
def test_its_parameters_are_the_language_models_in_the_whole(family: str) -> None:
    config = {"model_type": family, "torch_dtype": "float16", **WHOLES[family]}
    part = language_part(config, family)
    assert part is not None
    assert part.config is not None
    assert part.config["dtype"] == "float16"
    whole = transformers.CONFIG_MAPPING[family].from_dict(dict(config))
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(whole)
    inside = [p.numel() for name, p in model.named_parameters() if "language_model" in name]
    head = 0 if part.config["tie_word_embeddings"] else 512 * 64
    assert read_architecture(part.config, name=family).numel == sum(inside) + head


@pytest.mark.parametrize(("part", "like"), _SAME_PARAMETERS.items())
def test_a_part_of_another_name_has_the_same_parameters(part: str, like: str) -> None:
    text = transformers.CONFIG_MAPPING[part](**SMALL, pad_token_id=0)
    other = transformers.CONFIG_MAPPING[like].from_dict({**text.to_dict(), "model_type": like})
    with torch.device("meta"):
        models = [transformers.AutoModel.from_config(config) for config in (text, other)]
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in models]
    assert shapes[0] == shapes[1]


def test_a_class_that_takes_the_text_alone_says_so() -> None:
    part = language_part({"model_type": "mllama", "text_config": {"model_type": "mllama_text_model"}}, "x")
    assert part is not None
    assert (part.config, part.kind) == (None, "mllama")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "hidden_size": 64},
        {"model_type": "gemma3", "text_config": {}, "vision_config": {}},  # its class holds the tower as well
        {"model_type": "clip", "text_config": {}, "vision_config": {}},  # none of its parts speaks
        {"model_type": "no-such-model", "text_config": {}},
        {"model_type": 5, "text_config": {}},
        {"model_type": "mistral3", "text_config": None},
    ],
)
def test_what_has_no_such_part(config: dict[str, Any]) -> None:
    assert language_part(config, "x") is None
