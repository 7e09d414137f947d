"""Tiny models as the real libraries load, prepare and train them, and the bytes that they hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vramplan.scenario import Scenario

SMALL = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {"model_type": "llama", **SMALL, "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False}
QWEN2 = {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True}
GPT2 = {
    "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 512, "n_positions": 128,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", **SMALL, "num_key_value_heads": 2, "vocab_size": 512, "num_local_experts": 4,
    "num_experts_per_tok": 2, "tie_word_embeddings": False,
}  # fmt: skip
DEEPSEEK = {
    "model_type": "deepseek_v2", **SMALL, "num_key_value_heads": 4, "vocab_size": 512, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 48, "first_k_dense_replace": 1,
    "kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "n_group": 1, "topk_group": 1,
}  # fmt: skip
QWEN3_MOE = {
    "model_type": "qwen3_moe", **SMALL, "num_key_value_heads": 2, "vocab_size": 512, "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16, "tie_word_embeddings": False,
}  # fmt: skip
PHI3 = {
    "model_type": "phi3", **SMALL, "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {"llama": LLAMA, "qwen2": QWEN2, "gpt2": GPT2, "mixtral": MIXTRAL, "phi3": PHI3}
MIXTURES = {"deepseek_v2": DEEPSEEK, "qwen3_moe": QWEN3_MOE}


def scenario(family: str, **keys: Any) -> Scenario:
    """A scenario of a tiny model of that family."""
    from vramplan.scenario_file import scenario_from_mapping

    return scenario_from_mapping({"model": (MODELS | MIXTURES)[family], "seq": 16, **keys})


def config(family: str) -> Any:
    """transformers' configuration object."""
    return CONFIG_MAPPING[family].from_dict(dict((MODELS | MIXTURES)[family]))


def save_checkpoint(family: str, folder: Path) -> None:
    """A checkpoint of random bfloat16 weights."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config(family), dtype=torch.bfloat16).save_pretrained(folder)


def load(folder: Path, wanted: Scenario) -> nn.Module:
    """The real `from_pretrained`, quantised as the scenario says."""
    quant = wanted.quant
    options: dict[str, Any] = {}
    if quant.type.four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quant.type.value,
            bnb_4bit_use_double_quant=quant.double,
            bnb_4bit_compute_dtype=getattr(torch, wanted.compute_dtype),
        )
    elif quant.type.value == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    dtype = getattr(torch, wanted.dtype)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": "cpu"}, **options)


def one_step(model: nn.Module) -> None:
    """Forward and backward on a few tokens."""
    model.train()
    tokens = torch.arange(16).reshape(1, 16)
    model(input_ids=tokens, labels=tokens).loss.backward()


def held(model: nn.Module) -> int:
    """Bytes of every storage that parameters, buffers and quantisation states of the model occupy, each once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(model)}.values())


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    for module in model.modules():
        yield from _real(module._parameters.values())
        yield from _real(module._buffers.values())
        yield from _quantization(module)


def _real(values: Any) -> Iterator[torch.Tensor]:
    return (value for value in values if isinstance(value, torch.Tensor))


def _quantization(module: Any) -> Iterator[torch.Tensor]:
    weight = getattr(module, "weight", None)
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from _real((state.absmax, state.code, state.offset))
        state = state.state2
    yield from _real((getattr(weight, "SCB", None), getattr(getattr(module, "state", None), "SCB", None)))
