"""torchtune's model builders: what each makes, and the published model that has those dimensions."""

import re
from collections.abc import Mapping
from typing import NamedTuple

#: Builders of torchtune 0.6.1 (models/*/_model_builders.py), without lora_ and qlora_ -> the hub's repository, as
#: `tune download` in recipes/configs/ names it (base models where several share the dimensions).
_PUBLISHED: Mapping[str, str] = {
    "llama2_7b": "meta-llama/Llama-2-7b-hf",
    "llama2_13b": "meta-llama/Llama-2-13b-hf",
    "llama2_70b": "meta-llama/Llama-2-70b-hf",
    "code_llama2_7b": "codellama/CodeLlama-7b-hf",
    "code_llama2_13b": "codellama/CodeLlama-13b-hf",
    "code_llama2_70b": "codellama/CodeLlama-70b-hf",
    "llama3_8b": "meta-llama/Meta-Llama-3-8B",
    "llama3_70b": "meta-llama/Meta-Llama-3-70B",
    "llama3_1_8b": "meta-llama/Llama-3.1-8B",
    "llama3_1_70b": "meta-llama/Llama-3.1-70B",
    "llama3_1_405b": "meta-llama/Llama-3.1-405B",
    "llama3_2_1b": "meta-llama/Llama-3.2-1B",
    "llama3_2_3b": "meta-llama/Llama-3.2-3B",
    "llama3_3_70b": "meta-llama/Llama-3.1-70B",  # models/llama3_3/_model_builders.py: llama3_3_70b = llama3_1_70b
    "mistral_7b": "mistralai/Mistral-7B-v0.1",
    "phi3_mini": "microsoft/Phi-3-mini-4k-instruct",
    "phi4_14b": "microsoft/phi-4",
    "gemma_2b": "google/gemma-2b",
    "gemma_7b": "google/gemma-7b",
    "gemma2_2b": "google/gemma-2-2b",
    "gemma2_9b": "google/gemma-2-9b",
    "gemma2_27b": "google/gemma-2-27b",
    # models/qwen2/ and models/qwen2_5/ (_model_builders.py) hand the same numbers to one component builder
    "qwen2_0_5b": "Qwen/Qwen2.5-0.5B",
    "qwen2_1_5b": "Qwen/Qwen2.5-1.5B",
    "qwen2_7b": "Qwen/Qwen2.5-7B",
    "qwen2_5_0_5b": "Qwen/Qwen2.5-0.5B",
    "qwen2_5_1_5b": "Qwen/Qwen2.5-1.5B",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B",
    "qwen2_5_7b": "Qwen/Qwen2.5-7B",
    "qwen2_5_14b": "Qwen/Qwen2.5-14B",
    "qwen2_5_32b": "Qwen/Qwen2.5-32B",
    "qwen2_5_72b": "Qwen/Qwen2.5-72B",
}


class Builder(NamedTuple):
    """What the name of a builder says."""

    name: str
    """Without `lora_`, `qlora_`, and the `_base` and `_instruct` that only change the tokenizer."""
    adapts: bool
    quantized: bool


def builder(component: str) -> Builder | None:
    """The builder that a `_component_` path names; None for what is no language model of torchtune."""
    found = re.fullmatch(r"torchtune\.models\.\w+(?:\.\w+)?\.(q?lora_)?(\w+?)(?:_base|_instruct)?", component)
    if found is None or "reward" in found[2] or "vision" in component or "clip" in component:
        return None
    return Builder(found[2], adapts=bool(found[1]), quantized=found[1] == "qlora_")


def hub_model(name: str) -> str | None:
    """The published model with the dimensions of a builder; None for one that is not known."""
    return _PUBLISHED.get(name)
