"""A configuration that cannot be is refused, with the key's name, the value and what is allowed."""

from typing import Any

import pytest

from vramplan.architecture import read_architecture
from vramplan.catalog.models import catalog_config, catalog_names
from vramplan.errors import UnknownArchitecture, UsageError

LLAMA = catalog_config("llama-2-7b")
WHOLE = "it must be a whole number from 1 to 2,147,483,647"


def without(key: str, **more: Any) -> dict[str, Any]:
    return {k: v for k, v in LLAMA.items() if k != key} | more


CASES: list[tuple[Any, str, str]] = [
    (LLAMA | {"hidden_size": "4096"}, "'hidden_size' is '4096' in the configuration of m", WHOLE),
    (LLAMA | {"hidden_size": 4096.0}, "'hidden_size' is 4096.0 in the configuration of m", WHOLE),
    (LLAMA | {"hidden_size": True}, "'hidden_size' is True in the configuration of m", WHOLE),
    (LLAMA | {"hidden_size": None}, "'hidden_size' is None in the configuration of m", WHOLE),
    (LLAMA | {"hidden_size": [1] * 99}, f"'hidden_size' is [{'1, ' * 18}1,... in the configuration of m", WHOLE),
    (LLAMA | {"vocab_size": 0}, "'vocab_size' is 0 in the configuration of m", WHOLE),
    (LLAMA | {"intermediate_size": -1}, "'intermediate_size' is -1 in the configuration of m", WHOLE),
    (LLAMA | {"vocab_size": 2**31}, "'vocab_size' is 2147483648 in the configuration of m", WHOLE),
    (
        LLAMA | {"num_hidden_layers": 10_001},
        "'num_hidden_layers' is 10001",
        "it must be a whole number from 1 to 10,000",
    ),
    (LLAMA | {"num_attention_heads": 33}, "'num_attention_heads' is 33", "it must be a divisor of hidden_size (4096)"),
    (LLAMA | {"num_key_value_heads": 5}, "'num_key_value_heads' is 5", "a divisor of num_attention_heads (32)"),
    (LLAMA | {"tie_word_embeddings": "no"}, "'tie_word_embeddings' is 'no'", "it must be true or false"),
    (LLAMA | {"hidden_act": 3}, "'hidden_act' is 3", "it must be a string"),
    (LLAMA | {"attention_dropout": "x"}, "'attention_dropout' is 'x'", "it must be a number"),
    (LLAMA | {"attention_dropout": float("nan")}, "'attention_dropout' is nan", "it must be a number"),
    (LLAMA | {"rope_scaling": "x"}, "'rope_scaling' is 'x'", "it must be a mapping"),
    (
        without("hidden_size", hiden_size=1),
        "unknown key 'hiden_size' in the configuration of m",
        "did you mean 'hidden_size'?",
    ),
    (without("hidden_size", hidden_dimension=1), "unknown key 'hidden_dimension'", "did you mean 'hidden_size'?"),
    (
        without("hidden_size"),  # and not 'hidden_act'
        "'hidden_size' is missing in the configuration of m",
        "the weights cannot be listed without it: give the whole config.json",
    ),
    (
        without("num_key_value_heads", num_kv_heads=8),
        "unknown key 'num_kv_heads'",
        "did you mean 'num_key_value_heads'?",
    ),
    (without("num_key_value_heads", num_key_value_head=8), "unknown key 'num_key_value_head'", "did you mean"),
    (without("tie_word_embeddings", tie_word_embedding=True), "unknown key 'tie_word_embedding'", "did you mean"),
    (catalog_config("gpt-oss-20b") | {"num_hidden_layers": 23}, "'layer_types' is '24 entries'", "per layer (23)"),
    (catalog_config("gpt-oss-20b") | {"layer_types": ["x"] * 24}, "'layer_types' is 'x'", "one of full_attention"),
    (catalog_config("gpt-oss-20b") | {"layer_types": [[]] * 24}, "'layer_types' is [[], []", "a list of strings"),
    (catalog_config("gpt2") | {"hidden_size": 9}, "'n_embd' and 'hidden_size' disagree", "two spellings of one thing"),
    (catalog_config("gpt2") | {"add_cross_attention": True}, "'add_cross_attention' is True", "it must be false"),
    (catalog_config("phi-2") | {"partial_rotary_factor": 2}, "'partial_rotary_factor' is 2.0", "above 0 and at most 1"),
    (
        catalog_config("qwen3-30b-a3b") | {"mlp_only_layers": ["1"]},
        "'mlp_only_layers' is ['1']",
        "list of whole numbers",
    ),
    (catalog_config("falcon-7b") | {"bias": 1}, "'bias' is 1", "it must be true or false"),
]


@pytest.mark.parametrize(("config", "message", "hint"), CASES, ids=[case[1][:40] for case in CASES])
def test_the_key_is_named(config: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_architecture(config, name="m")
    assert message in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "the configuration of m is a list, not a mapping"),
        ({}, "no 'model_type' in the configuration of m"),
        ({"model_type": 3}, "'model_type' is 3 in the configuration of m"),
    ],
)
def test_a_configuration_without_a_family_is_refused(config: Any, message: str) -> None:
    with pytest.raises(UnknownArchitecture) as refused:
        read_architecture(config, name="m")
    assert refused.value.message == message
    assert refused.value.hint


@pytest.mark.parametrize("head", ["LlamaForSequenceClassification", "LlamaForTokenClassification", "BertForMaskedLM"])
def test_a_model_with_another_head_is_refused(head: str) -> None:
    config = catalog_config("llama-3.2-1b")
    with pytest.raises(UnknownArchitecture, match=f"is a {head}'s, which is no causal language model"):
        read_architecture(config | {"architectures": [head]}, name="m")
    assert read_architecture(config | {"architectures": ["LlamaForCausalLM"]}, name="m").family == "llama"


NONSENSE: list[Any] = ["x", -1, 0, 2**70, 0.5, float("nan"), None, [], ["x"], {}, {"x": "x"}, True]


@pytest.mark.parametrize("name", catalog_names())
def test_nonsense_in_any_key_is_never_a_traceback(name: str) -> None:
    config = catalog_config(name)
    refusals = []
    for key in config.keys() - {"model_type"}:
        for value in NONSENSE:
            try:
                read_architecture(config | {key: value}, name="m")
            except UsageError as refusal:
                refusals.append(refusal)
    assert all(refusal.message and refusal.hint for refusal in refusals)
    # at least the hidden size, the layers, the heads and the vocabulary can be none of these
    assert len(refusals) >= 4 * len(NONSENSE)
