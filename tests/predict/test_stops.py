"""What ends a run at its first step; the errors in the comments are those of runs on emulated cards."""

from typing import Any

import pytest
from real_models import scenario

from vramplan.predict.engine import predict_analytic

SCRIPT = {"base": "script", "autocast": False}
FLASH = {"attention": "flash_attention_2"}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        # "_amp_foreach_non_finite_check_and_unscale_cuda" not implemented for 'BFloat16'
        ({"stack": "trl", "compute_dtype": "float16"}, "torch none in bfloat16, to which TRL casts"),
        ({"lora": {"dtype": "bfloat16"}, "compute_dtype": "float16"}, "torch none in bfloat16"),
        # Attempting to unscale FP16 gradients.
        ({"method": "lora", "compute_dtype": "float16", "lora": {"modules_to_save": ["lm_head"]}}, "none in float16"),
        # ValueError: Gradient+optimizer bit data type combination not supported: grad torch.bfloat16
        ({"stack": "trl", "optimizer": "rmsprop_bnb"}, "bitsandbytes has no rmsprop_bnb for gradients in bfloat16"),
        ({"stack": "trl", "optimizer": "rmsprop_bnb_8bit", "lora": {"rank": 1}}, "no rmsprop_bnb_8bit for gradients"),
        # under the Trainer an embedding's states have 32 bits
        (
            {
                "method": "lora",
                "optimizer": "rmsprop_bnb_8bit",
                "lora": {"modules_to_save": ["embed_tokens"]},
                "stack": {"base": "hf-trainer", "upcast": "none"},
            },
            "no rmsprop_bnb_8bit for gradients",
        ),
        # expected mat1 and mat2 to have the same dtype, but got: float != c10::BFloat16
        ({"stack": {**SCRIPT, "upcast": "norms"}}, "meets a head of bfloat16"),
        # ValueError: Applying a PEFT adapter to `lm_head` is not supported
        ({"stack": "trl", "lora": {"targets": ["q_proj", "lm_head"]}}, "TRL refuses adapters on lm_head"),
        # RuntimeError: FlashAttention only supports Ampere GPUs or newer.
        (FLASH | {"gpu": "t4"}, "Ampere GPUs or newer (compute capability 8.0), and t4 has 7.5; set attention: sdpa"),
        (FLASH | {"gpu": "v100-16gb", "method": "inference"}, "v100-16gb has 7.0"),
    ],
)
def test_it_is_told(keys: dict[str, Any], reason: str) -> None:
    (warning,) = [text for text in predict_analytic(scenario("llama", **keys)).warnings if "first step" in text]
    assert reason in warning


@pytest.mark.parametrize(
    "keys",
    [
        {"stack": "trl"},
        {"optimizer": "rmsprop_bnb"},
        {"compute_dtype": "float16"},
        {"stack": {**SCRIPT, "upcast": "all"}},
        {"stack": {"base": "hf-trainer", "upcast": "norms"}},
        {"stack": {**SCRIPT, "upcast": "norms", "loss": "tiled"}},
        {"method": "inference", "stack": {**SCRIPT, "upcast": "norms"}},
        FLASH,
        FLASH | {"gpu": "a100-40gb"},
        FLASH | {"gpu": "t4", "method": "merge"},
        {"gpu": "t4"},
    ],
)
def test_other_runs_go_on(keys: dict[str, Any]) -> None:
    assert not any("first step" in text for text in predict_analytic(scenario("llama", **keys)).warnings)


def test_layer_norms_in_fp32_take_no_16_bits() -> None:
    # expected scalar type BFloat16 but found Float: of pythia-1.4b under TRL, whose head would cast its weight
    keys: dict[str, Any] = {"stack": {"base": "trl", "upcast": "norms", "autocast": False}}
    told = [predict_analytic(scenario(family, **keys)).warnings for family in ("gpt2", "llama")]
    found = [[text for text in warnings if "first step" in text] for warnings in told]
    assert found == [
        ["the run stops at its first step: without autocast layer norms in fp32 get hidden states of bfloat16"],
        [],
    ]
