"""A merge predicted, traced and really run: the three agree in every phase, in every mode."""

from typing import Any

import pytest
import torch

import vramplan
from vramplan.ledger import Component, Phase
from vramplan.measure.cpu_run import CpuRun
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}
GPT2 = {"model_type": "gpt2", "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 512}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
TIED = {**LLAMA, "tie_word_embeddings": True}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
HALF = {"rank": 8, "dtype": "bfloat16"}
MODES: dict[str, dict[str, Any]] = {
    "16-bit": {},
    "16-bit-adapters": {"lora": HALF},
    "safe": {"merge": {"safe": True}},
    "safe-16-bit-adapters": {"merge": {"safe": True}, "lora": HALF},
    "nf4": {"quant": {"type": "nf4"}},
    "nf4-safe-half": {"quant": {"type": "nf4"}, "merge": {"safe": True}, "lora": HALF},
    "int8": {"quant": {"type": "int8"}},
    "nf4-dequantised": {"quant": {"type": "nf4"}, "merge": {"dequantize": True}},
    "int8-dequantised": {"quant": {"type": "int8"}, "merge": {"dequantize": True}},
    "int8-dequantised-fp32": {"quant": {"type": "int8"}, "dtype": "float32", "merge": {"dequantize": True}},
    "fp32": {"dtype": "float32", "compute_dtype": "float32"},
    "conv1d": {"model": GPT2},
    "conv1d-nf4": {"model": GPT2, "quant": {"type": "nf4"}},
    "experts": {"model": MIXTRAL},
    "embeddings": {"lora": {"rank": 8, "targets": ["embed_tokens", "q_proj", "lm_head"]}},
    "head": {"lora": {"rank": 8, "targets": ["lm_head", "q_proj"]}},
    "table": {"lora": {"rank": 8, "targets": ["embed_tokens"]}},
    "trained-whole": {"lora": {"rank": 8, "modules_to_save": ["embed_tokens", "lm_head", "norm"]}},
    "trained-whole-nf4": {"lora": {"rank": 8, "modules_to_save": ["lm_head"]}, "quant": {"type": "nf4"}},
    "trained-whole-tied": {"model": TIED, "lora": {"rank": 8, "modules_to_save": ["embed_tokens", "lm_head"]}},
    "trained-whole-table": {"model": TIED, "lora": {"rank": 8, "modules_to_save": ["embed_tokens"]}},
}
#: peft itself warns that the adapters' file will hold the embeddings.
pytestmark = pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")


def scenario(**keys: Any) -> Scenario:
    return scenario_from_mapping({"model": LLAMA, "method": "merge", "load": "random", "lora": {"rank": 8}, **keys})


@pytest.mark.parametrize("mode", MODES)
def test_closed_form_and_trace_agree_on_a_card(mode: str) -> None:
    load = "checkpoint" if mode in ("16-bit", "nf4-dequantised", "experts", "head") else "random"
    wanted = scenario(load=load, **MODES[mode])
    closed, traced = vramplan.predict(wanted), vramplan.predict(wanted, "trace")
    assert closed.parameters == traced.parameters
    assert closed.ledger.phases == traced.ledger.phases == (Phase.LOAD, Phase.MERGE, Phase.SAVE)
    for phase in closed.ledger.phases:
        assert closed.ledger.allocated(phase) == pytest.approx(traced.ledger.allocated(phase), rel=0.0005), phase
        assert closed.reserved[phase] == traced.reserved[phase], phase


@pytest.mark.parametrize(
    "mode", ["safe-16-bit-adapters", "int8", "conv1d-nf4", "embeddings", "trained-whole", "trained-whole-tied"]
)
def test_a_real_merge_takes_what_is_predicted(mode: str) -> None:
    wanted = scenario(**MODES[mode])
    record = CpuRun(wanted, 1, print).record()
    closed = vramplan.predict(wanted, device="cpu")
    assert record.parameters == closed.parameters
    for phase in closed.ledger.phases:
        assert closed.ledger.allocated(phase) == pytest.approx(record.ledger.allocated(phase), rel=0.01), phase
        assert abs(record.ledger.bytes(phase, Component.UNKNOWN)) <= 0.01 * record.ledger.allocated(phase)
    for component in (Component.WEIGHTS, Component.QUANT_STATE, Component.UNQUANTIZED):
        assert closed.ledger.bytes(Phase.SAVE, component) == record.ledger.bytes(Phase.SAVE, component), component


def test_a_checkpoint_on_disk_is_merged_into(tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    from vramplan.training.build import transformers_config

    model = AutoModelForCausalLM.from_config(transformers_config(scenario()), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    wanted = scenario_from_mapping({"model": str(tmp_path), "method": "merge", "lora": {"rank": 8}})
    record = vramplan.measure(wanted, steps=1)
    assert record.outcome.value == "ok", record.note
    assert record.warnings == ()
    closed = vramplan.predict(wanted, device="cpu").ledger
    for phase in (Phase.MERGE, Phase.SAVE):
        assert closed.allocated(phase) == pytest.approx(record.ledger.allocated(phase), rel=0.01), phase
    # what was written is the merged model, and a header with the tensors' names
    written = record.environment["saved"]
    assert written["files"] == 1
    assert 0 < written["bytes"] - 2 * wanted.architecture.numel < 4096
