"""Preference training: what its pairs take, by hand; the order of it all is held by `test_event_order`."""

from typing import Any

import pytest

from tests.predict.real_models import LLAMA
from vramplan.ledger import Component, Phase
from vramplan.measure.trace import run_trace
from vramplan.predict.forecast import forecast, ledger
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.timeline import Alloc


def told(**keys: Any) -> Scenario:
    mapping = {"model": LLAMA, "load": "random", "gpu": "a100-80gb", "stack": "trl-dpo", "seq": 512, **keys}
    return scenario_from_mapping(mapping)


def test_a_batch_of_pairs_holds_what_twice_as_many_samples_do() -> None:
    """Until backward all of it is alike: checkpoints of the same tokens, whoever computes the loss of them."""
    pairs, samples = ledger(told(batch=2), "cuda"), ledger(told(batch=4, stack="trl"), "cuda")
    for component in (Component.ACTIVATIONS, Component.WEIGHTS, Component.ADAPTERS, Component.OPTIMIZER):
        assert pairs.bytes(Phase.FORWARD, component) == samples.bytes(Phase.FORWARD, component)


def test_the_reference_runs_without_adapters_and_without_a_graph() -> None:
    """The same model twice in the loss phase: with as many heads, and no product of an adapter in the second."""
    labels = [event.label for event in forecast(told(), "cuda").timeline.events() if isinstance(event, Alloc)]
    steps = 2  # the first and a later one, each with both models, and the tile once more in backward
    assert sum("logits of a tile" in label for label in labels) == 3 * steps
    inputs = sum("embedding output" in label for label in labels)
    assert inputs == 2 * steps
    down = [label for label in labels if "down_proj lora_B output" in label and "gradient" not in label]
    plain = forecast(told(stack="trl"), "cuda").timeline.events()
    alone = [e.label for e in plain if isinstance(e, Alloc) and "down_proj lora_B output" in e.label]
    assert len(down) == len([label for label in alone if "gradient" not in label])


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("checkpointing", [True, "reentrant", False])
def test_a_family_outside_the_table_runs_without_adapters_too(checkpointing: bool | str) -> None:
    """Its own code is run for the model and for the reference, which are built of the same modules."""
    helium = {**LLAMA, "model_type": "helium", "head_dim": 16}
    scenario = told(model=helium, checkpointing=checkpointing)
    predicted, run = forecast(scenario, "cuda").timeline, run_trace(scenario, "cuda").timeline
    for phase in (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD):
        of_both = [timeline.ledger({}).allocated(phase) for timeline in (predicted, run)]
        assert of_both[0] == pytest.approx(of_both[1], rel=0.005), phase


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_is_switched_off(dropout: float) -> None:
    keys = {"lora": {"rank": 8, "dropout": dropout}, "checkpointing": False}
    assert ledger(told(**keys), "cuda").peak == ledger(told(lora={"rank": 8}, checkpointing=False), "cuda").peak
