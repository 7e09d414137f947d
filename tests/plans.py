"""Small random scenarios, and budgets at which something is to be decided, for the tests of plans and advice."""

import random
from collections.abc import Hashable
from typing import Any

from vramplan.allocator import replay
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

#: Large enough for blocks of both pools of the allocator, small enough for a replay in a few milliseconds.
MODEL: dict[str, Any] = {
    "_name_or_path": "small",
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 8000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def small_scenario(**keys: Any) -> Scenario:
    """A scenario of the small model."""
    return scenario_from_mapping({"model": MODEL, "load": "random", **keys})


def random_scenario(seed: int) -> Scenario:
    """Any recipe on the small model."""
    pick = random.Random(seed)
    method = pick.choice(["qlora", "qlora", "lora"])
    quant = {"type": pick.choice(["nf4", "fp4", "int8"])} if method == "qlora" else {}
    if quant.get("type") in ("nf4", "fp4"):
        quant["double"] = pick.choice([True, False])
    return small_scenario(
        method=method,
        quant=quant,
        lora={"rank": pick.choice([8, 16, 64]), "targets": pick.choice(["all-linear", ["q_proj", "v_proj"]])},
        batch=pick.choice([1, 2, 4, 8]),
        seq=pick.choice([128, 256, 512, 768]),
        grad_accum=pick.choice([1, 2]),
        optimizer=pick.choice(["adamw_torch", "paged_adamw_8bit", "sgd"]),
        checkpointing=pick.choice([True, False, "reentrant"]),
        attention=pick.choice(["sdpa", "eager"]),
        stack=pick.choice(["hf-trainer", "script"]),
    )


#: By run and budget: trying every list of changes comes to the same runs many times.
_FITTING: dict[tuple[Hashable, int], bool] = {}


def fits(scenario: Scenario, budget: int) -> bool:
    """What `predict` says."""
    asked = scenario.key, budget
    if asked not in _FITTING:
        verdict = predict_analytic(scenario, budget=budget).verdict
        assert verdict is not None
        _FITTING[asked] = verdict.fits
    return _FITTING[asked]


def held(scenario: Scenario) -> int:
    """Bytes that the allocator reserves when nothing stops it."""
    return replay(forecast(scenario, "cuda").timeline.parts).reserved
