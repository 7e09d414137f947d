"""What preparation casts, freezes and attaches."""

from typing import Any

import pytest
import torch
from tiny_models import LLAMA, tiny

from vramplan.errors import UsageError
from vramplan.training.build import build_model
from vramplan.training.meter import NoMeter
from vramplan.training.prepare import adaptable, prepare

CPU = torch.device("cpu")
QWEN2 = {**LLAMA, "model_type": "qwen2"}


def prepared(**changes: Any) -> Any:
    scenario = tiny(model=QWEN2, **changes)
    return prepare(build_model(scenario, CPU, NoMeter()), scenario, NoMeter())


def sixteen_bit(model: Any) -> set[str]:
    """Last two parts of the names of the base model's parameters that are still 16-bit."""
    return {
        ".".join(name.split(".")[-2:])
        for name, parameter in model.named_parameters()
        if parameter.dtype in (torch.bfloat16, torch.float16) and "lora_" not in name
    }


def test_upcast_all_leaves_nothing_in_sixteen_bits() -> None:
    assert sixteen_bit(prepared()) == set()


def test_upcast_norms_casts_embeddings_and_head_back() -> None:
    model = prepared(stack={"base": "hf-trainer", "upcast": "norms"})
    assert sixteen_bit(model) == {"embed_tokens.weight", "lm_head.weight"}


def test_upcast_rest_casts_norms_back_too() -> None:
    model = prepared(stack={"base": "hf-trainer", "upcast": "rest"}, quant={"type": "int8"})
    norms = {"input_layernorm.weight", "post_attention_layernorm.weight", "norm.weight"}
    assert sixteen_bit(model) == {"embed_tokens.weight", "lm_head.weight", *norms}  # biases are not


def test_no_upcast_leaves_the_base_as_it_was_loaded() -> None:
    names = sixteen_bit(prepared(stack={"base": "hf-trainer", "upcast": "none"}))
    assert {"embed_tokens.weight", "lm_head.weight", "norm.weight", "base_layer.bias"} <= names


@pytest.mark.parametrize(("spelled", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_adapters_have_the_dtype_that_was_asked_for(spelled: str, dtype: torch.dtype) -> None:
    model = prepared(lora={"dtype": spelled, "rank": 4})
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {dtype}


def test_only_adapters_train() -> None:
    model = prepared(lora={"targets": ["q_proj"], "rank": 4})
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * 2  # A and B on q_proj of two layers
    assert all(".q_proj.lora_" in name for name in trainable)


def test_full_fine_tuning_trains_everything_in_its_dtype() -> None:
    model = prepared(method="full")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("spelled", "reentrant"), [(True, False), ("reentrant", True)])
def test_checkpointing_is_of_the_kind_that_was_asked_for(spelled: Any, reentrant: bool) -> None:
    layer = prepared(checkpointing=spelled).get_base_model().model.layers[0]
    assert layer.gradient_checkpointing
    assert layer._gradient_checkpointing_func.keywords == {"use_reentrant": reentrant}


def test_without_checkpointing_no_layer_is_checkpointed() -> None:
    assert not prepared(checkpointing=False).get_base_model().model.layers[0].gradient_checkpointing


def test_a_target_that_matches_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown target module 'gate_prok'") as caught:
        prepared(lora={"targets": ["q_proj", "gate_prok"]})
    assert "did you mean 'gate_proj'" in caught.value.hint


def test_the_head_is_not_adaptable() -> None:
    scenario = tiny(model=QWEN2)
    names = adaptable(build_model(scenario, CPU, NoMeter()))
    assert names == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
