"""Models small enough to train in a test, and the scenario that trains one."""

from typing import Any

from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "tie_word_embeddings": False,
}

MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 256}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}


def tiny(**keys: Any) -> Scenario:
    """A run of the Llama, whose weights are drawn at random; `keys` change it."""
    return scenario_from_mapping({"model": LLAMA, "load": "random", "batch": 2, "seq": 64, **keys})
