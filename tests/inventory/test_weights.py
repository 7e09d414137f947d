"""Every weight of every model is in exactly one role, and the bytes are those of the prediction."""

import pytest
from real_models import MIXTURES, MODELS, config
from real_models import scenario as tiny
from transformers import AutoModelForCausalLM

from vramplan.architecture import WeightKind
from vramplan.catalog.models import catalog_names
from vramplan.inventory.weights import Role, inventory
from vramplan.ledger import Component, Phase
from vramplan.predict.engine import parameters
from vramplan.predict.forecast import ledger
from vramplan.scenario import Scenario

BASE = (Component.WEIGHTS, Component.QUANT_STATE, Component.UNQUANTIZED)


def role(model: str, name: str, **keys: object) -> Role:
    return next(r for r in inventory(Scenario.load(model, **keys)).roles if r.name == name)


@pytest.mark.parametrize("model", catalog_names())
def test_roles_add_up_to_the_model(model: str) -> None:
    scenario = Scenario.load(model)
    roles = inventory(scenario).roles
    counted = parameters(scenario)
    assert sum(r.parameters for r in roles if r.kind is not WeightKind.BUFFER) == counted.total
    assert sum(r.parameters for r in roles if r.quantized) == counted.quantized
    assert all(r.why for r in inventory(scenario).matrices)


@pytest.mark.parametrize("quant", ["nf4", "int8", "none"])
@pytest.mark.parametrize("model", [*MODELS, *MIXTURES])
def test_bytes_are_those_of_the_prediction(model: str, quant: str) -> None:
    # biases of quantised layers are cast by the first step; without upcast every weight stays as it is loaded
    scenario = tiny(
        model, method="qlora" if quant != "none" else "lora", quant={"type": quant}, stack={"upcast": "none"}
    )
    held = ledger(scenario, "cpu")
    found = sum(held.bytes(Phase.FORWARD, component) for component in BASE)
    shared = 1024 if quant == "nf4" else 0  # the process's own copy of the 256-entry map
    assert sum(r.bytes for r in inventory(scenario).roles) + shared == found


@pytest.mark.parametrize("model", MODELS)
def test_shapes_and_counts_are_those_of_the_real_model(model: str) -> None:
    import torch

    with torch.device("meta"):
        real = AutoModelForCausalLM.from_config(config(model), dtype=torch.bfloat16)
    shapes = sorted(tuple(p.shape) for p in real.parameters() if p.dim() > 1)
    ours = sorted(r.shape for r in inventory(tiny(model)).matrices for _ in range(r.count))
    assert ours == shapes


def test_reasons() -> None:
    assert role("llama-2-7b", "self_attn.q_proj").why == "nn.Linear"
    assert role("gpt2", "attn.c_attn").why.startswith("Conv1D")
    assert "leaves out" in role("llama-2-7b", "lm_head").why
    assert "shares it" in role("gpt2", "transformer.wte").why
    assert "shares it" not in role("gpt2", "transformer.wpe").why
    assert "subclass of nn.Linear" in role("falcon-7b", "mlp.dense_h_to_4h").why
    assert role("mixtral-8x7b-v0.1", "mlp.experts.gate_up_proj").why.startswith("8 experts in one parameter")
    assert "router" in role("mixtral-8x7b-v0.1", "mlp.gate").why
    norms = role("llama-2-7b", "norms")
    assert "cast from bfloat16" in norms.why
    assert (norms.tensors, norms.shape) == (65, (266_240,))  # two per layer and the last: 65 x 4096


def test_what_is_not_quantised_on_purpose_needs_no_reason() -> None:
    assert role("llama-2-7b", "self_attn.q_proj", method="full", quant={"type": "none"}).why == ""
