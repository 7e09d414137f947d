"""Against peft: which modules it adapts, and the shapes it trains."""

import warnings
from collections import Counter

import pytest
import torch
from peft import LoraConfig, get_peft_model
from real_models import MODELS, config, scenario
from transformers import AutoModelForCausalLM

from vramplan.errors import UsageError
from vramplan.predict.adapters import check_targets, trainables
from vramplan.predict.saved_modules import check_saved

TARGETS = {
    "llama": ["all-linear", ["q_proj", "v_proj"], ["self_attn.o_proj", "lm_head"], ["embed_tokens", "down_proj"]],
    "qwen2": ["all-linear", ["k_proj"]],
    "gpt2": ["all-linear", ["c_attn"], ["c_proj"], ["attn.c_proj", "c_fc"]],
    "mixtral": ["all-linear", ["q_proj", "o_proj"], ["w1", "w3", "v_proj"], ["gate", "w2"]],
    "qwen3_moe": ["all-linear", ["down_proj", "k_proj"]],
    "deepseek_v2": ["all-linear", ["o_proj"]],
    "phi3": ["all-linear", ["qkv_proj", "gate_up_proj"]],
}
CASES = [(family, targets) for family in TARGETS for targets in TARGETS[family]]


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # peft on Mixtral with all-linear
@pytest.mark.parametrize(("family", "targets"), CASES, ids=str)
def test_shapes_are_those_that_peft_trains(family: str, targets: str | list[str]) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(family), dtype=torch.bfloat16)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
            lora = LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2")
            trained = get_peft_model(model, lora)
    real = Counter(tuple(p.shape) for p in trained.parameters() if p.requires_grad)
    predicted: Counter[tuple[int, ...]] = Counter()
    for tensor in trainables(scenario(family, lora={"rank": 3, "targets": targets})):
        predicted[tensor.shape] += tensor.times
        assert tensor.element == 4  # peft's autocast_adapter_dtype
    assert predicted == real


SAVED = [
    ("llama", ["embed_tokens", "lm_head"], "all-linear"),
    ("llama", ["norm", "layernorm"], ["q_proj"]),
    ("qwen2", ["lm_head"], ["q_proj"]),  # tied: a copy of its own
    ("qwen2", ["embed_tokens", "lm_head"], ["embed_tokens", "q_proj"]),  # what is trained whole has no adapter
    ("gpt2", ["wte", "ln_f"], "all-linear"),
    ("mixtral", ["lm_head"], ["q_proj"]),
    ("llama", ["q_proj", "mlp.up_proj"], "all-linear"),  # in a base that is not quantised
]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(("family", "saved", "targets"), SAVED, ids=str)
def test_modules_trained_whole_are_those_that_peft_copies(
    family: str, saved: list[str], targets: str | list[str]
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(family), dtype=torch.bfloat16)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
            lora = LoraConfig(r=3, target_modules=targets, modules_to_save=saved, fan_in_fan_out=family == "gpt2")
            trained = get_peft_model(model, lora)
    real = Counter((tuple(p.shape), p.element_size()) for p in trained.parameters() if p.requires_grad)
    predicted: Counter[tuple[tuple[int, ...], int]] = Counter()
    keys = {"rank": 3, "targets": targets, "modules_to_save": saved}
    for tensor in trainables(scenario(family, method="lora", lora=keys)):
        predicted[tensor.shape, tensor.element] += tensor.times
    assert predicted == real


@pytest.mark.parametrize(
    ("saved", "message", "hint"),
    [
        ("embed_token", "no such module", "did you mean 'embed_tokens'?"),
        (
            "q_proj",
            "it is quantised, and integers have no gradients",
            "available: embed_tokens, norm, lm_head, input_layernorm",
        ),
        ("mlp", "it holds other modules", "available: embed_tokens"),
    ],
)
def test_what_cannot_be_trained_whole_is_refused(saved: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        check_saved(scenario("llama", lora={"modules_to_save": [saved]}))
    assert f"'{saved}' of llama" in error.value.message
    assert message in error.value.message
    assert hint in error.value.hint


def test_adapter_dtype() -> None:
    assert {t.element for t in trainables(scenario("llama", lora={"dtype": "bfloat16"}))} == {2}


def test_full_fine_tuning_trains_every_parameter() -> None:
    wanted = scenario("qwen2", method="full")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config("qwen2"), dtype=torch.bfloat16)
    real = Counter(tuple(p.shape) for p in model.parameters())
    predicted: Counter[tuple[int, ...]] = Counter()
    for tensor in trainables(wanted):
        predicted[tensor.shape] += tensor.times
        assert tensor.element == 2
    assert predicted == real


def test_inference_trains_nothing() -> None:
    assert trainables(scenario("llama", method="inference")) == ()


@pytest.mark.parametrize("family", MODELS)
def test_a_target_that_matches_nothing_names_the_nearest(family: str) -> None:
    wanted = scenario(family, lora={"targets": ["q_porj"]})
    with pytest.raises(UsageError) as error:
        check_targets(wanted.architecture, wanted.lora)
    assert "q_porj" in error.value.message
    assert "available: " in error.value.hint
    if family == "llama":
        assert "did you mean 'q_proj'?" in error.value.hint
