"""What a checkpoint's config.json says of its own quantisation decides, where a scenario names no type."""

from typing import Any

import pytest

from vramplan.catalog.models import catalog_config
from vramplan.checkpoint_quant import named_quant, other_quant_method, stored_quant
from vramplan.errors import UsageError
from vramplan.scenario import Quant
from vramplan.scenario_file import scenario_from_mapping

SINGLE = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def quant(found: object, **keys: Any) -> Quant:
    config = {**catalog_config("llama-2-7b"), "quantization_config": found}
    return scenario_from_mapping({"model": config, **keys}).quant


@pytest.mark.parametrize(
    ("found", "keys", "kind", "double"),
    [
        (SINGLE, {}, "nf4", False),
        ({**SINGLE, "bnb_4bit_use_double_quant": True}, {}, "nf4", True),
        ({"load_in_4bit": True}, {}, "fp4", False),  # bitsandbytes' defaults
        ({"load_in_8bit": True}, {}, "int8", False),
        (SINGLE, {"method": "inference"}, "nf4", False),
        (SINGLE, {"method": "merge"}, "none", False),  # into 16 bits
        (SINGLE, {"quant": {"double": True}}, "nf4", True),  # what is asked for stands, and is warned about
        (SINGLE, {"quant": {"type": "int8"}}, "int8", False),
        (SINGLE, {"load": "random"}, "nf4", True),  # weights that are made
        ({"quant_method": "gptq", "bits": 4}, {}, "nf4", True),
        (None, {}, "nf4", True),
    ],
)
def test_the_checkpoint_decides(found: object, keys: dict[str, Any], kind: str, double: bool) -> None:
    assert (quant(found, **keys).type.value, quant(found, **keys).double) == (kind, double)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_is_not_trained_as_a_16_bit_one(method: str) -> None:
    with pytest.raises(UsageError, match=r"quantised already, as quant\.type nf4, which transformers keeps") as caught:
        quant(SINGLE, method=method, quant={"type": "none"} if method == "lora" else {})
    assert "--method qlora" in caught.value.hint
    assert quant(SINGLE, method=method, load="random").type.value == "none"


def test_methods_of_others() -> None:
    assert other_quant_method({"quantization_config": {"quant_method": "awq"}}) == "awq"
    assert other_quant_method({"quantization_config": {"quant_method": "mxfp4"}}) == ""
    assert other_quant_method({"quantization_config": SINGLE}) == other_quant_method({}) == ""


def test_a_name_says_it_too() -> None:
    found = stored_quant(named_quant("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"))
    assert found is not None
    assert (found.type.value, found.double) == ("nf4", True)
    assert not named_quant("unsloth/Meta-Llama-3.1-8B-Instruct")
    assert not named_quant("someone/Llama-3.1-8B-4bit")
