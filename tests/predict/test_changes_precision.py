"""The changes of element types: what they set, where they apply, and that what they lead to runs."""

from typing import Any

import pytest
from real_models import scenario

from vramplan.ledger import Component, Phase
from vramplan.predict import changes_precision as precision
from vramplan.predict.changes import CHANGES
from vramplan.predict.forecast import ledger
from vramplan.predict.stops import stops
from vramplan.scenario import DType, Method, QuantType, Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.stacks import Upcast

BY_NAME = {change.name: change for change in CHANGES}
#: What TRL makes of a YAML without `dtype` (trl 1.16 trainer/model_config.py, base_config.py).
TRL: dict[str, Any] = {
    "dtype": "float32",
    "compute_dtype": "float32",
    "stack": {"base": "trl", "autocast": "bfloat16"},
}


def types(changed: Scenario) -> tuple[str, str, bool | str]:
    """What the base is loaded in, what bitsandbytes computes in, and what autocast does."""
    return changed.dtype.value, changed.compute_dtype.value, changed.stack.autocast


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"gpu": "rtx4090"}, ("bfloat16", "bfloat16", "bfloat16")),
        ({}, ("bfloat16", "bfloat16", "bfloat16")),  # no card is named: the usual ones know bfloat16
        ({"gpu": "t4"}, ("float16", "float16", "float16")),
        ({"gpu": "rtx4090", "stack": {"base": "trl", "autocast": "float16"}}, ("float16", "float16", "float16")),
        ({"gpu": "t4", "stack": {"base": "script", "autocast": False}}, ("float16", "float16", False)),
    ],
)
def test_a_frozen_fp32_base_is_loaded_in_the_cards_16_bits(
    keys: dict[str, Any], wanted: tuple[str, str, bool | str]
) -> None:
    (changed,) = BY_NAME["dtype"].variants(scenario("llama", method="lora", **TRL | keys))
    assert types(changed) == wanted
    assert changed.lora.dtype is DType.FLOAT32  # peft's autocast_adapter_dtype


def test_half_of_the_frozen_base_is_saved() -> None:
    given = scenario("llama", method="lora", **TRL)
    (changed,) = BY_NAME["dtype"].variants(given)
    before, after = (ledger(one).bytes(Phase.STEP, Component.WEIGHTS) for one in (given, changed))
    # 2 layers of q and o 64 x 64, k and v 64 x 32, gate, up and down 64 x 160: 2 x (12,288 + 30,720), of 4 and 2 B
    assert (before, after) == (86_016 * 4, 86_016 * 2)


def test_fp32_products_of_a_4_bit_base_go_as_well() -> None:
    given = scenario("llama", compute_dtype="float32", dtype="bfloat16")
    (changed,) = BY_NAME["dtype"].variants(given)
    assert changed.compute_dtype is DType.BFLOAT16
    assert BY_NAME["dtype"].label(given, changed) == "compute_dtype bfloat16 instead of float32"


@pytest.mark.parametrize("keys", [{"method": "lora"}, {}, {"method": "full", **TRL}, {"method": "inference", **TRL}])
def test_there_is_nothing_to_load_in_16_bits(keys: dict[str, Any]) -> None:
    assert BY_NAME["dtype"].variants(scenario("llama", **keys)) == ()


def test_trained_weights_become_bfloat16_where_the_card_knows_it() -> None:
    (changed,) = BY_NAME["trained dtype"].variants(scenario("llama", method="full", gpu="rtx4090", **TRL))
    assert changed.dtype is DType.BFLOAT16
    assert not BY_NAME["trained dtype"].keeps_training
    assert BY_NAME["trained dtype"].variants(scenario("llama", method="full", gpu="t4", **TRL)) == ()


def test_trained_weights_stay_fp32_where_their_gradients_are_scaled() -> None:
    keys = TRL | {"stack": {"base": "trl", "autocast": "float16"}}
    given = scenario("llama", method="full", gpu="rtx4090", **keys)
    assert precision.trained_weights(given)  # torch would stop it: no scaling of bfloat16
    assert BY_NAME["trained dtype"].variants(given) == ()


def test_a_card_without_bfloat16_computes_in_float16() -> None:
    (changed,) = BY_NAME["float16"].variants(scenario("llama", gpu="t4"))
    assert types(changed) == ("float16", "float16", "float16")
    (alone,) = BY_NAME["float16"].variants(scenario("llama", gpu="t4", stack="script"))
    assert types(alone) == ("float16", "float16", False)


@pytest.mark.parametrize(
    "keys",
    [
        {"gpu": "rtx4090"},
        {},
        {"gpu": "t4", "compute_dtype": "float16"},
        {"gpu": "t4", "method": "full", "dtype": "bfloat16"},  # bfloat16 gradients would be scaled
        {"gpu": "t4", "method": "full", "stack": "script"},  # float16 weights without scaled gradients
        {"gpu": "t4", "stack": "trl"},  # TRL casts the adapters to bfloat16
        {"gpu": "t4", "method": "inference"},
    ],
)
def test_elsewhere_float16_is_no_change(keys: dict[str, Any]) -> None:
    assert BY_NAME["float16"].variants(scenario("llama", **keys)) == ()


@pytest.mark.parametrize(("name", "method"), [("quantize", "lora"), ("adapters", "full")])
@pytest.mark.parametrize("gpu", ["rtx4090", "t4"])
def test_an_fp32_base_is_quantised_too(name: str, method: str, gpu: str) -> None:
    (changed,) = BY_NAME[name].variants(scenario("llama", method=method, gpu=gpu, **TRL))
    assert (changed.method, changed.quant.type) == (Method.QLORA, QuantType.NF4)
    assert types(changed) == ("bfloat16", "bfloat16", "bfloat16")  # on the T4 too: TRL's adapters are bfloat16
    assert changed.lora.dtype is DType.BFLOAT16
    assert not any(stops(changed))
    assert scenario_from_mapping(changed.to_mapping()) == changed


@pytest.mark.parametrize(
    ("stack", "upcast"), [("hf-trainer", Upcast.ALL), ("trl", Upcast.NONE), ("script", Upcast.ALL)]
)
def test_a_base_that_becomes_4_bits_is_prepared_as_the_stack_does(stack: str, upcast: Upcast) -> None:
    given = scenario("llama", method="full", stack=stack)
    assert given.stack.upcast is Upcast.NONE  # what is not quantised is not prepared
    (changed,) = BY_NAME["adapters"].variants(given)
    assert changed.stack == scenario("llama", method="qlora", stack=stack).stack
    assert changed.stack.upcast is upcast
