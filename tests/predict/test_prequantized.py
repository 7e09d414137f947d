"""A checkpoint that is quantised already is said to be, where the prediction is of another one."""

from typing import Any

import pytest

import vramplan
from vramplan.catalog.models import catalog_config
from vramplan.predict.prequantized import prequantized_warnings
from vramplan.scenario_file import scenario_from_mapping

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def warning(found: object, **keys: Any) -> str:
    config = {**catalog_config("llama-2-7b"), "quantization_config": found}
    found_to_say = prequantized_warnings(scenario_from_mapping({"model": config, **keys}))
    assert len(found_to_say) < 2
    return found_to_say[0] if found_to_say else ""


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        (None, {}),
        ({**NF4, "bnb_4bit_use_double_quant": True}, {}),
        (NF4, {}),
        ({"load_in_8bit": True}, {"method": "inference"}),
        (NF4, {"quant": {"double": False}}),
        ({"load_in_8bit": True}, {"quant": {"type": "int8"}}),
        ({"quant_method": "gptq"}, {"load": "random"}),  # whose weights are made, not read
    ],
)
def test_what_is_predicted_needs_no_words(found: object, keys: dict[str, Any]) -> None:
    assert warning(found, **keys) == ""


@pytest.mark.parametrize(
    ("found", "keys", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, {}, "quantised by gptq"),
        (
            NF4,
            {"quant": {"type": "nf4"}},
            "nf4, and transformers keeps that; quant.type nf4 with double quantisation is",
        ),
        ({"load_in_4bit": True}, {"quant": {"type": "nf4"}}, "as quant.type fp4"),  # bitsandbytes' default
    ],
)
def test_another_one_is_named(found: object, keys: dict[str, Any], words: str) -> None:
    assert words in warning(found, **keys)


def test_a_prediction_says_it() -> None:
    config = {**catalog_config("llama-2-7b"), "quantization_config": {"quant_method": "awq"}}
    assert "quantised by awq" in vramplan.predict(scenario_from_mapping({"model": config})).warnings[0]
    assert "quantised by mxfp4" in vramplan.predict(scenario_from_mapping({"model": "gpt-oss-20b"})).warnings[0]


def test_layers_that_the_checkpoint_leaves_in_16_bits_are_said() -> None:
    """As Unsloth's dynamic checkpoints do; the head is never quantised, and of other models' modules there are none."""
    given = {**NF4, "bnb_4bit_use_double_quant": True}
    names = ["lm_head", "merger", "model.layers.0.mlp", "model.layers.1.self_attn"]
    # 3 x 4,096 x 11,008 of layer 0's feed-forward, 4 x 4,096 x 4,096 of layer 1's attention
    count = 3 * 4096 * 11_008 + 4 * 4096**2
    assert f"leaves {count:,} parameters" in warning({**given, "llm_int8_skip_modules": names})
    assert warning({**given, "llm_int8_skip_modules": ["lm_head", "merger"]}) == ""


@pytest.mark.parametrize(("upcast", "element"), [("none", 2), ("norms", 4), ("all", 4)])
def test_what_is_left_out_is_prepared_as_any_weight_that_is_not_quantised(upcast: str, element: int) -> None:
    """peft makes every 16-bit parameter fp32; only embedding and head are cast back under `norms`."""
    given = {**NF4, "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": ["model.layers.0.mlp"]}
    count = 3 * 4096 * 11_008
    # 4 bits, and 8 / 64 + 32 / (64 x 256) of constants, for a parameter that is quantised
    more = count * (element - (4 + 8 / 64 + 32 / (64 * 256)) / 8)
    assert f"they take {more / 2**20:.2f} MiB more" in warning(given, stack={"base": "hf-trainer", "upcast": upcast})
