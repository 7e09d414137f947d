"""Every causal language model of transformers: a prediction or a refusal, never a traceback; the traced ones exact."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vramplan.api import predict
from vramplan.architecture.read import FAMILIES
from vramplan.errors import VramplanError
from vramplan.ledger import Component, Phase
from vramplan.predict.forecast import ledger
from vramplan.predict.step import step_warnings
from vramplan.record import Prediction
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # what transformers thinks of such small configurations
]

#: Sizes by every spelling that configuration classes have for them.
SIZES: dict[tuple[str, ...], int] = {
    ("hidden_size", "n_embd", "d_model", "dim", "n_embed"): 256,
    ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff"): 704,
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers"): 3,
    ("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"): 2,
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads"): 4,
    ("num_key_value_heads", "num_kv_heads"): 2,
    ("head_dim", "attention_head_dim", "kv_channels"): 64,
    ("vocab_size", "vocab_size_per_layer_input"): 1000,
    ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"): 2048,
    ("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"): 320,
    ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"): 4,
    ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k", "moe_k"): 2,
    ("pad_token_id",): 0,
    ("bos_token_id",): 1,
    ("eos_token_id",): 2,
}
#: What a family needs besides: sizes that must agree with each other.
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "head_dim": 16,
    "kv_lora_rank": 96, "q_lora_rank": 128, "qk_nope_head_dim": 48, "qk_rope_head_dim": 16, "v_head_dim": 48,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "deepseek_v3": LATENT,
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "hunyuan_v1_dense": {"head_dim": 64},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 64},
    "mamba2": {"num_heads": 8, "head_dim": 64, "expand": 2},
}


def tiny(family: str) -> dict[str, Any]:
    """A small configuration; keys that the class doesn't have are left out."""
    try:
        known = CONFIG_MAPPING[family]().to_dict()
    except Exception:  # a class that cannot be made without its parts
        known = {}
    sizes = {
        key: size for keys, size in SIZES.items() for key in keys if key in known and isinstance(known[key], int | None)
    }
    nested = any(isinstance(value, dict) and "model_type" in value for value in known.values())
    return {"model_type": family} | ({} if nested else sizes) | OWN.get(family, {})


def scenario(family: str, **changes: Any) -> Scenario:
    given = {"name": family, "model": tiny(family), "batch": 2, "seq": 256, "stack": "script"}
    return scenario_from_mapping(given | changes)


@cache
def analytic(family: str, stack: str, checkpointing: bool) -> Prediction:
    return predict(scenario(family, seq=1024, stack=stack, checkpointing=checkpointing))


#: Families of several parts (images, sound) by default of several billion parameters: their reading alone takes long.
LARGE = {"blt", "emu3", "gemma3", "gemma4", "gemma4_unified", "llama4", "mllama", "qwen3_5", "qwen3_5_moe"}


@pytest.mark.parametrize("family", sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(FAMILIES) - LARGE))
def test_no_family_ends_in_a_traceback(family: str) -> None:
    answer = predicted_or_refused(scenario, family)
    assert isinstance(answer, VramplanError) or answer > 0
    assert not isinstance(answer, VramplanError) or (answer.message and answer.hint)


def predicted_or_refused(read: Any, family: str, **changes: Any) -> int | VramplanError:
    """The peak, or the refusal; any other exception is the test's failure."""
    try:
        run = read(family, **{"checkpointing": False, "seq": 64} | changes)
        assert all("--engine trace" in warning for warning in step_warnings(run, "cuda"))
        return ledger(run).peak
    except VramplanError as refusal:
        return refusal


#: What stopped at a traceback once, or would, were one thing different.
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("cpmant", {"method": "inference", "new_tokens": 4}),  # its embedding stands behind the layers
    ("camembert", {"method": "inference"}),  # its embedding is its head's
    ("phimoe", {"method": "full", "quant": {"type": "none"}}),  # a derivative of its own returns fewer gradients
    ("got_ocr2", {"stack": "hf-trainer"}),  # the language model inside has a switch of its own for the cache
    ("got_ocr2", {"attention": "eager", "checkpointing": True}),
    ("fuyu", {"attention": "eager", "checkpointing": True}),
    ("fuyu", {"attention": "eager", "checkpointing": False}),
]


@pytest.mark.parametrize(("family", "changes"), RUNS, ids=[f"{f}-{'-'.join(map(str, c))}" for f, c in RUNS])
def test_no_way_to_run_ends_in_a_traceback(family: str, changes: dict[str, Any]) -> None:
    answer = predicted_or_refused(scenario, family, **changes)
    assert not isinstance(answer, VramplanError)
    assert answer > 0


#: Families whose code goes through sets of words, and some whose layers leave parts of their graph without a gradient.
REPEATED = ["gemma4_text", "doge", "kimi_linear"]
_EVENTS = """
import gc, hashlib, sys
from tests.predict.test_derived_families import scenario
from vramplan.predict.step import step_parts
gc.set_threshold(int(sys.argv[1]))
for family in sys.argv[2:]:
    parts = step_parts(scenario(family, seq=64, checkpointing=False), "cuda")
    print(family, hashlib.sha256(repr(parts).encode()).hexdigest())
"""


def test_the_answer_is_the_same_in_every_process() -> None:
    root = Path(__file__).parents[2]
    commands = [("1", "50"), ("2", "100000")]
    answers = [
        subprocess.run(
            [sys.executable, "-c", _EVENTS, collected, *REPEATED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, collected in commands
    ]
    assert answers[0] == answers[1]
    assert len(answers[0].splitlines()) == len(REPEATED)


#: Families by what is particular about their layers; each held against the real libraries on fake tensors.
EXACT = [
    ("cohere", "hf-trainer", True),  # attention and MLP side by side, layer norms without a shift, scaled logits
    ("cohere2", "script", False),  # layers with and without rotary positions
    ("bloom", "script", False),  # eager alone, positions added to scores, an activation with a derivative of its own
    ("gptj", "hf-trainer", True),
    ("nemotron", "hf-trainer", True),  # asks whether autocast is on
    ("glm4_moe", "script", False),  # experts with adapters, shared ones beside them
    ("deepseek_v3", "script", False),  # latent attention
    ("bamba", "script", False),  # state spaces
    ("modernbert-decoder", "script", False),  # a bias on a head that shares the embedding's table
    ("rembert", "hf-trainer", True),  # attention weights beside a layer's output, until the last one has returned
]


@pytest.mark.parametrize(("family", "stack", "checkpointing"), EXACT, ids=[family for family, _, _ in EXACT])
def test_the_closed_form_follows_the_trace(family: str, stack: str, checkpointing: bool) -> None:
    own = analytic(family, stack, checkpointing)
    traced = predict(own.scenario, "trace")
    assert own.parameters == traced.parameters
    for phase in Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP:
        assert tensors(own, phase) == pytest.approx(tensors(traced, phase), rel=0.001), phase


FULL: dict[str, Any] = {"method": "full", "quant": {"type": "none"}, "stack": "hf-trainer", "checkpointing": False}
#: The same for ways to train that show more of a family's code.
EXACT_WAYS: list[tuple[str, dict[str, Any]]] = [
    ("deepseek_v3", {"attention": "eager", "checkpointing": False}),  # keys made empty, and filled through views
    ("minimax", {"stack": "hf-trainer"}),  # a checkpointed layer saves for a state that training never reads
    ("laguna", {"stack": "hf-trainer"}),  # the gradient of a sum repeats in memory, a view's backward writes it out
    ("mimo_v2_flash", FULL),  # experts' outputs summed up under autocast
    ("deepseek_v4", FULL),  # parameters that transformers keeps in fp32
    ("llama4_text", FULL),  # scores of experts scattered into a tensor made of nothing
    ("qwen3_next", {"checkpointing": False}),  # a triangular system solved per chunk
    ("electra", FULL | {"attention": "sdpa:math"}),  # positions see those behind them, some are dropped
]


@pytest.mark.parametrize(("family", "changes"), EXACT_WAYS, ids=[family for family, _ in EXACT_WAYS])
def test_the_closed_form_follows_the_trace_however_a_family_is_trained(family: str, changes: dict[str, Any]) -> None:
    own = predict(scenario(family, **changes))
    traced = predict(own.scenario, "trace")
    for phase in Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP:
        assert tensors(own, phase) == pytest.approx(tensors(traced, phase), rel=0.001), phase


def test_a_buffer_that_the_code_replaces_is_said_to_be_open() -> None:
    run = scenario("ctrl", **FULL)  # its positions become 16-bit in the first step
    assert any("'pos_encoding'" in warning and "--engine trace" in warning for warning in step_warnings(run, "cuda"))
    assert ledger(run) == ledger(scenario("ctrl", **FULL))


def test_what_a_module_keeps_for_the_next_step_is_said_to_be_open() -> None:
    run = scenario("recurrent_gemma", seq=64)
    assert any("keeps in 'recurrent_states'" in warning for warning in step_warnings(run, "cuda"))


def tensors(prediction: Prediction, phase: Phase) -> int:
    """Bytes of tensors at the phase's peak; how a large block is cut decides more in so small a model."""
    outside = (Component.ALLOCATOR, Component.CONTEXT)
    return sum(e.bytes for e in prediction.ledger.entries if e.phase is phase and e.component not in outside)


@pytest.mark.parametrize("family", ["bloom", "gpt_neo", "codegen", "gptj"])
def test_a_family_without_sdpa_runs_eager_unless_a_kernel_is_named(family: str) -> None:
    eager = ledger(scenario(family, attention="eager"))
    assert ledger(scenario(family)) == eager
    with pytest.raises(VramplanError, match="has no attention 'sdpa:flash'"):
        ledger(scenario(family, attention="sdpa:flash"))


def test_what_transformers_cannot_checkpoint_is_refused() -> None:
    with pytest.raises(VramplanError, match="no gradient checkpointing"):
        ledger(scenario("gpt_neox_japanese", checkpointing=True))


def test_what_peft_leaves_alone_in_a_state_space_is_refused() -> None:
    with pytest.raises(VramplanError, match="'out_proj' of 'mamba2'"):
        ledger(scenario("mamba2"))


def test_a_loop_over_tokens_is_said_to_be_open() -> None:
    run = scenario("rwkv", seq=4096)
    assert any("taken for Llama's" in warning and "--engine trace" in warning for warning in step_warnings(run, "cuda"))


@pytest.mark.parametrize("family", ["cohere", "bloom", "gpt_neo"])
def test_generation_warns(family: str) -> None:
    run = scenario(family, method="inference", new_tokens=8)
    assert ledger(run).peak > 0
    assert any("taken for Llama's" in warning for warning in step_warnings(run, "cuda"))


def test_layers_that_differ_in_a_switch_alone_are_kinds_of_their_own() -> None:
    # SmolLM3 leaves out the rotation in every fourth layer
    model = tiny("smollm3") | {"num_hidden_layers": 8}
    layers = scenario("smollm3", model=model).architecture.layers
    assert [layers[i] == layers[0] for i in range(8)] == [True, True, True, False] * 2


def test_what_the_caller_set_in_torch_does_not_reach_the_observed_code() -> None:
    """Sizes of its own, so that no other test has observed it before."""
    own = {"model_type": "olmo", "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2}
    model = {**own, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 777}
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        within = predict(scenario_from_mapping({"model": model, "load": "random", "seq": 64}))
    assert within.ledger.bytes(Phase.FORWARD, Component.ACTIVATIONS) > 0
