"""Names on the hub that mean a model of the catalogue, and names that only look like it."""

import pytest

from vramplan.catalog.models import catalog_entries
from vramplan.catalog.twins import plain_name, twin


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("unsloth/llama-3-8b-bnb-4bit", "llama-3-8b"),
        ("unsloth/llama-3-8b-Instruct-bnb-4bit", "llama-3-8b"),
        ("NousResearch/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("NousResearch/Llama-2-7b-hf", "llama-2-7b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("TheBloke/Llama-2-13B-fp16", "llama-2-13b"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b"),  # the catalogue's name has no date
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b-v0.1"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-12b"),
        ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral-small-24b"),
        ("google/gemma-2-9b-it", "gemma-2-9b"),
        ("google/gemma-3-1b-it", "gemma-3-1b"),
        ("allenai/OLMo-2-1124-7B-Instruct", "olmo-2-7b"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek-v2-lite"),
        ("deepseek-ai/deepseek-coder-1.3b-instruct", "deepseek-coder-1.3b"),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm2-1.7b"),
        ("tiiuae/falcon-7b-instruct", "falcon-7b"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b"),
    ],
)
def test_a_twin_is_told_by_its_name(repo: str, name: str) -> None:
    assert twin(repo) == name


@pytest.mark.parametrize(
    "repo",
    [
        "meta-llama/Llama-3-9B-Instruct",  # a size that is not in the catalogue
        "meta-llama/Llama-4-8B",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "Qwen/Qwen2-7B-Instruct",  # another family
        "Qwen/Qwen2.5-Coder-7B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct-AWQ",  # a quantisation that is not bitsandbytes'
        "codellama/CodeLlama-7b-hf",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "google/gemma-1.1-7b-it",
        "microsoft/Phi-3-mini-128k-instruct",
        "microsoft/Phi-4-mini-instruct",
        "mistralai/Mistral-7B-Instruct-v0.2",  # the catalogue's releases of it differ in their vocabulary
        "unsloth/mistral-7b-bnb-4bit",
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        "allenai/OLMo-2-0425-7B",
        "someone/instruct",
        "someone/7b",
        "/",
    ],
)
def test_a_name_that_may_mean_other_dimensions_has_no_twin(repo: str) -> None:
    assert twin(repo) is None


def test_every_catalogue_model_is_its_own_twin() -> None:
    for entry in catalog_entries().values():
        assert twin(entry.hub_id) == entry.name
        assert twin(f"someone/{entry.name}") == entry.name


def test_what_is_compared_with_the_catalogue_has_no_flavour() -> None:
    assert plain_name("Qwen/Qwen2-7B-Instruct") == "qwen2-7b"
