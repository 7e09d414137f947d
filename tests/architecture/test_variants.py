"""Configurations that no catalogue model has: every switch of a family that changes a name or a shape."""

from typing import Any

import pytest
from meta import build, real_buffers, real_parameters, table_buffers, table_parameters

from vramplan.architecture import read_architecture
from vramplan.architecture.read import FAMILIES

#: What a configuration must say itself; everything else is left to the defaults of the library's class.
REQUIRED: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 32,
    "intermediate_size": 96,
    "vocab_size": 60_000,
}
GPT2: dict[str, Any] = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 60_000}
OWN = {
    "gpt2": GPT2,
    "opt": {"ffn_dim": 96},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4},
    "gpt_neox": {"num_attention_heads": 4},
}


def minimal(family: str) -> dict[str, Any]:
    base = {} if family == "gpt2" else REQUIRED
    return {"model_type": family, **base, **OWN.get(family, {})}


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "head_dim": 16}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": None, "head_dim": None}),
    ("mistral", {"num_key_value_heads": 4, "sliding_window": None, "head_dim": 8}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "num_key_value_heads": 2}),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"], "use_sliding_window": True}),
    ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    ("qwen3_moe", {"mlp_only_layers": [1], "num_experts": 4, "attention_bias": True, "head_dim": 8}),
    ("qwen3_moe", {"decoder_sparse_step": 2, "num_local_experts": 4}),
    ("granite", {"attention_bias": True, "mlp_bias": True}),
    ("olmo2", {"num_key_value_heads": 4, "attention_bias": True}),
    ("gemma", {"num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": False}),
    ("gemma2", {"layer_types": ["full_attention"] * 3, "sliding_window": None}),
    ("gemma3_text", {"num_hidden_layers": 7, "sliding_window_pattern": 3}),
    ("gemma3_text", {"layer_types": ["full_attention"] * 3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ("phi", {"qk_layernorm": True, "num_key_value_heads": 4, "partial_rotary_factor": 0.5, "hidden_size": 256}),
    ("phi", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}, "hidden_size": 512}),
    ("phi3", {"num_key_value_heads": 8, "hidden_size": 256, "partial_rotary_factor": 0.5}),
    ("gpt2", {"n_inner": 100, "tie_word_embeddings": False, "n_positions": 40}),
    (
        "gpt_neox",
        {"attention_bias": False, "use_parallel_residual": False, "rotary_pct": 0.5, "tie_word_embeddings": True},
    ),
    ("starcoder2", {"use_bias": False, "tie_word_embeddings": False}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 8, "bias": True}),
    ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "num_kv_heads": 4}),
    ("falcon", {"parallel_attn": False, "multi_query": False, "alibi": True, "bias": True, "ffn_hidden_size": 100}),
    ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    ("opt", {"enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": False}),
    ("mixtral", {"num_local_experts": 4, "head_dim": 8, "num_key_value_heads": 2}),
    ("gpt_oss", {"attention_bias": False, "num_experts_per_tok": 2}),
    ("deepseek_v2", {"q_lora_rank": None, "first_k_dense_replace": 1, "n_routed_experts": 4, "mlp_bias": True}),
    ("deepseek_v2", {"q_lora_rank": 24, "attention_bias": True, "n_shared_experts": 1, "v_head_dim": 32}),
]


def same(config: dict[str, Any]) -> bool:
    model, architecture = build(config), read_architecture(config, name="variant")
    assert table_parameters(architecture) == real_parameters(model)
    assert table_buffers(architecture) == real_buffers(model)
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_left_out_mean_the_defaults_of_the_library(family: str) -> None:
    assert same(minimal(family))


@pytest.mark.parametrize(("family", "keys"), VARIANTS, ids=[f"{f}-{'-'.join(k)}" for f, k in VARIANTS])
def test_every_switch_does_what_the_library_does(family: str, keys: dict[str, Any]) -> None:
    assert same(minimal(family) | keys)


@pytest.mark.parametrize(("family", "keys"), [v for v in VARIANTS if v[0] in ("qwen2", "gemma2", "gemma3_text")])
def test_windows_are_those_of_the_modules(family: str, keys: dict[str, Any]) -> None:
    config = minimal(family) | keys
    architecture = read_architecture(config, name="variant")
    own = [m.sliding_window or 0 for m in build(config).modules() if type(m).__name__.endswith("Attention")]
    assert [architecture.blocks[kind].attention.window for kind in architecture.layers] == own


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_that_the_library_turns_on_by_itself_is_a_fact(family: str) -> None:
    from torch.nn import Dropout

    config = minimal(family)
    on = {module.p for module in build(config).modules() if isinstance(module, Dropout) and module.p > 0}
    own = read_architecture(config, name="variant").facts.dropouts
    assert {own.attention, own.residual, own.embedding} >= on
