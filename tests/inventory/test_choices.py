"""Choices of targets: against peft's own count of trained parameters, and against predictions of the same scenario."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from real_models import MIXTURES, MODELS, config
from real_models import scenario as tiny
from transformers import AutoModelForCausalLM

import vramplan
from vramplan.catalog.models import catalog_names
from vramplan.errors import UsageError
from vramplan.inventory.choices import Named, choices, target_choices
from vramplan.ledger import Component, Phase
from vramplan.scenario import Scenario

CASES = [
    pytest.param(family, named, id=f"{family} {named.name}")
    for family in (*MODELS, *MIXTURES)
    for named in target_choices(tiny(family))
]


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # peft on mixtures with all-linear
@pytest.mark.parametrize(("family", "named"), CASES)
def test_trained_parameters_are_pefts(family: str, named: Named) -> None:
    targets = named.targets[0] if named.targets == ("all-linear",) else list(named.targets)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(family), dtype=torch.bfloat16)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
            lora = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", fan_in_fan_out=family == "gpt2")
            trained, _ = get_peft_model(model, lora).get_nb_trainable_parameters()
    [found] = [choice for choice in choices(tiny(family), [4]) if choice.name == named.name]
    assert found.parameters == trained
    assert found.adapters == 4 * trained  # peft keeps adapters in fp32


@pytest.mark.parametrize("model", catalog_names())
def test_every_model_has_choices_that_mean_different_tensors(model: str) -> None:
    found = choices(Scenario.load(model, seq=64), [8])
    assert len(found) >= 2
    assert len({choice.parameters for choice in found}) == len(found)
    attention = next(choice for choice in found if choice.name == "attention")
    assert attention.parameters > found[0].parameters or found[0] is attention


def test_a_choice_is_a_prediction_of_the_same_scenario() -> None:
    given = {"gpu": "rtx3090", "optimizer": "paged_adamw_8bit", "seq": 512}
    [found] = [c for c in choices(Scenario.load("llama-2-7b", **given), [64]) if c.name == "attention"]
    lora = {"rank": 64, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    prediction = vramplan.predict(Scenario.load("llama-2-7b", lora=lora, **given))
    # 4 matrices x 32 layers x 64 x (4096 + 4096)
    assert found.parameters == prediction.parameters.trainable == 67_108_864
    ledger = prediction.ledger
    assert (found.peak, found.verdict) == (ledger.peak, prediction.verdict)
    assert found.adapters == ledger.bytes(Phase.STEP, Component.ADAPTERS)
    assert found.gradients == ledger.bytes(Phase.STEP, Component.GRADIENTS)
    assert found.optimizer == ledger.bytes(Phase.STEP, Component.OPTIMIZER)
    assert found.managed == 2 * 67_108_864


def test_the_scenarios_own_targets_are_a_choice_when_they_are_no_other() -> None:
    names = [named.name for named in target_choices(Scenario.load("llama-2-7b", lora={"targets": ["o_proj"]}))]
    assert names == ["q, v", "attention", "mlp", "all-linear", "as given"]
    same = [named.name for named in target_choices(Scenario.load("llama-2-7b", lora={"targets": ["v_proj", "q_proj"]}))]
    assert same == ["q, v", "attention", "mlp", "all-linear"]


def test_experts_are_no_choice_where_peft_refuses_them() -> None:
    dropout = Scenario.load("mixtral-8x7b-v0.1", lora={"dropout": 0.1, "targets": ["q_proj"]})
    assert [named.name for named in target_choices(dropout)] == ["q, v", "attention", "as given"]
    with pytest.raises(UsageError, match="no dropout for adapters of experts"):
        choices(Scenario.load("mixtral-8x7b-v0.1", lora={"dropout": 0.1}), [8])


@pytest.mark.parametrize("method", ["full", "inference"])
def test_without_adapters_there_is_no_choice(method: str) -> None:
    assert choices(Scenario.load("gpt2", method=method), [8]) == ()
