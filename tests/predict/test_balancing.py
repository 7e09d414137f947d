"""Router scores that TRL's trainers keep for the loss that balances experts, against the libraries and by hand."""

from typing import Any

import pytest

from tests.predict.real_models import MIXTRAL, QWEN3_MOE
from vramplan.ledger import Component, Phase
from vramplan.measure.trace import run_trace
from vramplan.predict.forecast import forecast, ledger
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.timeline import Timeline

#: Statistics of rows and numbers, of which the closed form writes down but some.
NUMBERS = 8 * 1024


def told(model: dict[str, Any], **keys: Any) -> Scenario:
    mapping = {"model": {**model}, "load": "random", "batch": 4, "seq": 256, "stack": "trl", "gpu": "a100-80gb"}
    return scenario_from_mapping({**mapping, "lora": {"targets": ["q_proj"]}, **keys})


def most(timeline: Timeline, phase: Phase) -> int:
    return timeline.ledger({}).allocated(phase)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("checkpointing", [True, "reentrant", False])
@pytest.mark.parametrize("model", [MIXTRAL, {**QWEN3_MOE, "norm_topk_prob": True}, QWEN3_MOE], ids=["a", "b", "c"])
def test_loss_and_backward_hold_what_the_libraries_hold(model: dict[str, Any], checkpointing: bool | str) -> None:
    scenario = told(model, checkpointing=checkpointing)
    predicted, run = forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline
    for phase in (Phase.LOSS, Phase.BACKWARD)[checkpointing == "reentrant" :]:
        assert most(predicted, phase) == pytest.approx(most(run, phase), abs=NUMBERS), phase


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("stack", [{"base": "hf-trainer", "loss": "tiled"}, {"base": "trl", "loss": "torch"}])
def test_only_trls_trainers_with_their_own_head_ask(stack: dict[str, Any]) -> None:
    scenario = told(MIXTRAL, stack={**stack, "upcast": "none"}, checkpointing=False)
    predicted, run = forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline
    assert most(predicted, Phase.BACKWARD) == pytest.approx(most(run, Phase.BACKWARD), abs=NUMBERS)


def test_each_layer_keeps_a_score_of_each_expert() -> None:
    """4 x 256 tokens, 4 experts, bfloat16: 8 KiB in each of two layers; without the loss only one layer's at a time."""
    kept = ledger(told(MIXTRAL), "cuda").bytes(Phase.LOSS, Component.ACTIVATIONS)
    without = ledger(told({**MIXTRAL, "router_aux_loss_coef": 0.0}), "cuda").bytes(Phase.LOSS, Component.ACTIVATIONS)
    layers, experts = MIXTRAL["num_hidden_layers"], MIXTRAL["num_local_experts"]
    assert kept - without == layers * 4 * 256 * experts * 2
