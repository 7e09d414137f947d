"""Every optimizer of the closed list can be made and stepped on the CPU, as the real Trainer makes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from vramplan.optimizers import OPTIMIZERS
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.build import build_model
from vramplan.training.meter import NoMeter
from vramplan.training.optimizers import LEARNING_RATE, create_optimizer
from vramplan.training.prepare import prepare

CPU = torch.device("cpu")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def scenario(optimizer: str, **changes: Any) -> Scenario:
    return scenario_from_mapping(
        {"model": LLAMA, "load": "random", "optimizer": optimizer, "method": "full", **changes}
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return prepare(build_model(scenario("sgd"), CPU, NoMeter()), scenario("sgd"), NoMeter())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps(name: str, model: Any) -> None:
    optimizer = create_optimizer(model, scenario(name))
    before = model.lm_head.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    assert not torch.equal(model.lm_head.weight, before)


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_8bit", "adafactor", "lion_32bit", "sgd"])
def test_class_groups_and_options_are_the_trainers(name: str, model: Any, tmp_path: Path) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path), optim=name, learning_rate=LEARNING_RATE, use_cpu=True, report_to=[]
    )
    real = Trainer(model=model, args=arguments).create_optimizer()
    own = create_optimizer(model, scenario(name))
    assert type(own) is type(real)
    assert len(own.param_groups) == len(real.param_groups) == 2
    for ours, theirs in zip(own.param_groups, real.param_groups, strict=True):
        assert [id(p) for p in ours["params"]] == [id(p) for p in theirs["params"]]
        assert {k: v for k, v in ours.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}


def test_an_earlier_optimizer_does_not_change_a_later_one(model: Any) -> None:
    create_optimizer(model, scenario("adamw_8bit"))  # the Trainer asks for 32-bit states of the embedding
    later = create_optimizer(model, scenario("adamw_8bit", stack="script"))
    embedding = model.get_input_embeddings().weight
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    later.step()
    later.zero_grad()
    # 128 x 32 elements reach the 4,096 from which states have 8 bits
    assert later.state[embedding]["state1"].dtype is torch.uint8


def test_a_script_has_one_group(model: Any) -> None:
    assert len(create_optimizer(model, scenario("adamw_torch", stack="script")).param_groups) == 1


def test_foreach_can_be_asked_for(model: Any) -> None:
    optimizer = create_optimizer(model, scenario("adamw_torch"), foreach=True)
    assert optimizer.param_groups[0]["foreach"] is True
