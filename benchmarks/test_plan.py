"""How long plans take: `make bench`."""

from typing import Any

from vramplan.plan.advice import advise
from vramplan.plan.answer import plan
from vramplan.plan.limit import Limit, Probe
from vramplan.plan.matrix import SEQS, matrix
from vramplan.scenario_file import scenario_from_mapping

MODELS = ("llama-3.2-1b", "qwen2.5-1.5b", "llama-3.2-3b", "llama-2-7b", "llama-3.1-8b", "qwen2.5-14b", "qwen2.5-32b")
MODELS += ("llama-3.1-70b",)
CARDS = ("t4", "rtx3060-12gb", "rtx4060ti-16gb", "rtx3090", "rtx4090", "rtx5090", "l4", "a6000")
CARDS += ("a100-40gb", "a100-80gb", "h100-80gb", "b200")


def test_eight_models_twelve_cards_seven_lengths(benchmark: Any) -> None:
    models = [scenario_from_mapping({"model": name}) for name in MODELS]
    found = benchmark.pedantic(matrix, (models, CARDS, SEQS, Limit()), rounds=1)
    assert len(found.cells) * len(found.cards) * len(found.seqs) == 8 * 12 * 7


def test_the_plan_of_a_7b_model(benchmark: Any) -> None:
    scenario = scenario_from_mapping({"model": "llama-2-7b", "gpu": "rtx4090"})
    found = benchmark.pedantic(plan, (scenario, Limit()), rounds=1)
    assert len(found.rows) == 6


def test_advice_for_an_8b_model(benchmark: Any) -> None:
    scenario = scenario_from_mapping(
        {"model": "llama-3.1-8b", "gpu": "rtx4090", "batch": 8, "checkpointing": False, "stack": "script"}
    )
    assert benchmark.pedantic(advise, (scenario, Probe(Limit())), rounds=1)
