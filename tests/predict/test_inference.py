"""Inference in closed form: against the trace for several families, and caches by arithmetic."""

from typing import Any

import pytest

import vramplan
from vramplan.ledger import Component, Phase
from vramplan.predict.forecast import ledger
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
WINDOW = {**LLAMA, "model_type": "mistral", "sliding_window": 32}
GEMMA2 = {**LLAMA, "model_type": "gemma2", "head_dim": 32, "sliding_window": 32}
GPT2 = {"model_type": "gpt2", "n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 512, "vocab_size": 512}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
LATENT = {
    "model_type": "deepseek_v2", **{key: value for key, value in LLAMA.items() if key != "model_type"},
    "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 64, "first_k_dense_replace": 1, "kv_lora_rank": 32, "q_lora_rank": None,
    "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32, "n_group": 1, "topk_group": 1,
}  # fmt: skip


def scenario(model: dict[str, Any], **keys: Any) -> Scenario:
    run = {"method": "inference", "load": "random", "batch": 3, "seq": 96, "new_tokens": 8}
    return scenario_from_mapping({"model": model, **run, **keys})


@pytest.mark.parametrize(
    ("model", "kind"),
    [(LLAMA, "nf4"), (LLAMA, "int8"), (WINDOW, "nf4"), (GEMMA2, "none"), (GPT2, "none"), (LATENT, "nf4")],
    ids=lambda value: value if isinstance(value, str) else value["model_type"],
)
def test_the_trace_agrees(model: dict[str, Any], kind: str) -> None:
    wanted = scenario(model, quant={"type": kind})
    closed, traced = (vramplan.predict(wanted, engine).ledger for engine in ("analytic", "trace"))
    assert closed.phases == traced.phases == (Phase.LOAD, Phase.PREFILL, Phase.DECODE)
    for phase in closed.phases:
        assert closed.allocated(phase) == pytest.approx(traced.allocated(phase), rel=0.002), phase
    assert closed.bytes(Phase.PREFILL, Component.CACHE) == traced.bytes(Phase.PREFILL, Component.CACHE)


@pytest.mark.parametrize(("card", "kernels"), [("t4", {"math"}), ("a100-80gb", {"flash"})])
def test_the_attention_kernels_are_those_of_the_trace(card: str, kernels: set[str]) -> None:
    wanted = scenario(LLAMA, gpu=card)
    closed, traced = (vramplan.predict(wanted, engine) for engine in ("analytic", "trace"))
    assert set(closed.attention) == set(traced.attention) == kernels
    assert closed.warnings == traced.warnings
    assert any("math kernel" in warning for warning in closed.warnings) is ("math" in kernels)


def test_the_cache_is_every_tokens_keys_and_values() -> None:
    # 3 layers, 2 heads of 32, 16 bits, keys and values: 768 bytes a token, 3 samples; the last token is never fed back
    found = ledger(scenario(LLAMA), "cpu")
    assert found.bytes(Phase.PREFILL, Component.CACHE) == 768 * 3 * 96
    assert found.bytes(Phase.DECODE, Component.CACHE) == 768 * 3 * (96 + 7)
    longer = ledger(scenario(LLAMA, new_tokens=200), "cpu")
    assert longer.bytes(Phase.DECODE, Component.CACHE) >= 768 * 3 * (96 + 199)


def test_latent_attention_remembers_the_compressed_form() -> None:
    # 32 of the latent and 16 rotated of the key in 16 bits, in 3 layers, for 3 samples
    assert ledger(scenario(LATENT), "cpu").bytes(Phase.PREFILL, Component.CACHE) == 3 * 3 * 96 * 2 * (32 + 16)
    (warning,) = vramplan.predict(scenario(LATENT), device="cpu").warnings
    assert "3-D parameters" in warning  # its experts; of its attention nothing is open


def test_while_a_token_is_added_a_layers_keys_are_there_twice() -> None:
    # a 16-bit base: nothing is dequantised, the highest moment of decoding is the last layer's concatenation
    found = ledger(scenario(LLAMA, quant={"type": "none"}, new_tokens=100), "cpu")
    whole, keys_before = 768 * 3 * (96 + 99), 128 * 3 * (96 + 98)
    assert found.bytes(Phase.DECODE, Component.CACHE) == whole + keys_before
