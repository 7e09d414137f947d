"""A checkpoint that is quantised already is said to be, where the prediction is of another one."""

from typing import Any

import pytest

import vramplan
from vramplan.catalog.models import catalog_config
from vramplan.predict.prequantized import prequantized_warning
from vramplan.scenario_file import scenario_from_mapping

NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def warning(found: object, **keys: Any) -> str:
    config = {**catalog_config("llama-2-7b"), "quantization_config": found}
    return prequantized_warning(scenario_from_mapping({"model": config, **keys}))


@pytest.mark.parametrize(
    ("found", "keys"),
    [
        (None, {}),
        ({**NF4, "bnb_4bit_use_double_quant": True}, {}),
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
        (NF4, {}, "as quant.type nf4, and transformers keeps that; quant.type nf4 with double quantisation is"),
        ({"load_in_4bit": True}, {"quant": {"double": False}}, "as quant.type fp4"),  # bitsandbytes' default
        (NF4, {"method": "lora", "quant": {"type": "none"}}, "quant.type none is predicted"),
    ],
)
def test_another_one_is_named(found: object, keys: dict[str, Any], words: str) -> None:
    assert words in warning(found, **keys)


def test_a_prediction_says_it() -> None:
    config = {**catalog_config("llama-2-7b"), "quantization_config": {"quant_method": "awq"}}
    assert "quantised by awq" in vramplan.predict(scenario_from_mapping({"model": config})).warnings[0]
