"""The recipe that tutorials print: shipped once, and the same keys small, on a GPU's suite, and traced at full size."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import vramplan
from vramplan.ledger import STATIC_COMPONENTS, Phase
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def read(name: str) -> Scenario:
    (found,) = read_scenarios(SCENARIOS / f"{name}.yaml")
    return found


def keys(scenario: Scenario, *but: str) -> dict[str, Any]:
    return {key: value for key, value in scenario.to_mapping().items() if key not in ("name", "model", "load", *but)}


def test_it_is_the_printed_one() -> None:
    recipe = read("llama-2-7b-guanaco")
    assert (recipe.batch, recipe.grad_accum, recipe.seq) == (4, 4, 512)
    assert (recipe.lora.rank, recipe.lora.dropout) == (64, 0.1)
    assert recipe.lora.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (recipe.optimizer, recipe.compute_dtype.value, recipe.stack.autocast) == (
        "paged_adamw_8bit",
        "float16",
        "float16",
    )


def test_the_small_one_and_the_gpus_have_its_keys() -> None:
    recipe = read("llama-2-7b-guanaco")
    assert keys(read("tiny/llama-recipe"), "seq") == keys(recipe, "seq")
    assert keys(read("gpu/501-llama-2-7b-recipe"), "gpu") == keys(recipe, "gpu")


def test_at_full_size_closed_form_and_trace_agree() -> None:
    recipe = replace(read("llama-2-7b-guanaco"), grad_accum=1)  # accumulating is held on small models
    closed, traced = vramplan.predict(recipe), vramplan.predict(recipe, "trace")
    assert closed.ledger.peak == pytest.approx(traced.ledger.peak, rel=0.002)
    for phase in closed.ledger.phases[1:]:
        assert closed.ledger.allocated(phase) == pytest.approx(traced.ledger.allocated(phase), rel=0.005), phase
    for component in STATIC_COMPONENTS:
        assert closed.ledger.bytes(Phase.STEP, component) == traced.ledger.bytes(Phase.STEP, component), component
    assert max(closed.reserved.values()) == pytest.approx(max(traced.reserved.values()), rel=0.03)
