"""The base model as built here, against the same model through the real `from_pretrained`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import GPT2, LLAMA, MIXTRAL
from torch import Tensor
from transformers import AutoModelForCausalLM

from vramplan.errors import CannotRun, UsageError
from vramplan.ledger import Component
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.build import build_model, skeleton, transformers_config
from vramplan.training.counting import bits_per_parameter, count_parameters
from vramplan.training.meter import NoMeter

CPU = torch.device("cpu")
TIED = {**LLAMA, "tie_word_embeddings": True}
QUANTS = [
    {"type": "nf4", "double": True},
    {"type": "fp4", "double": False},
    {"type": "nf4", "storage": "bfloat16"},
    {"type": "int8", "double": False},
]


class Names:
    """A meter that adds up what it is told, each storage once, its last name winning."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[Component, Tensor]] = {}

    def enter(self, phase: Any) -> None: ...

    def name(self, tensor: Tensor, component: Component, label: str) -> None:
        self.found[tensor.untyped_storage().data_ptr()] = (component, tensor)

    def bytes(self) -> dict[Component, int]:
        total: dict[Component, int] = {}
        for component, tensor in self.found.values():
            total[component] = total.get(component, 0) + tensor.untyped_storage().nbytes()
        return total


def scenario(model: Any, **changes: Any) -> Scenario:
    return scenario_from_mapping({"model": model, "load": "random", **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes a model's random weights once, as a checkpoint."""
    made: dict[str, Path] = {}

    def write(config: dict[str, Any]) -> Path:
        kind = config["model_type"]
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            model = AutoModelForCausalLM.from_config(transformers_config(scenario(config)), dtype=torch.bfloat16)
            model.save_pretrained(made[kind])
        return made[kind]

    return write


def tensors(model: Any) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in named.items()}


@pytest.mark.parametrize("quant", QUANTS, ids=lambda quant: "-".join(map(str, quant.values())))
@pytest.mark.parametrize("config", [TIED, GPT2, MIXTRAL], ids=lambda config: config["model_type"])
def test_built_layer_by_layer_is_what_from_pretrained_loads(config: Any, quant: Any, folder: Any) -> None:
    own, loaded = Names(), Names()
    built = build_model(scenario(config, quant=quant), CPU, own)
    real = build_model(scenario(str(folder(config)), quant=quant, load="checkpoint"), CPU, loaded)
    assert tensors(built) == tensors(real)
    assert own.bytes() == loaded.bytes()
    assert count_parameters(built).total == count_parameters(real).total
    assert count_parameters(built).quantized == count_parameters(real).quantized


@pytest.mark.parametrize("block", [32, 64, 256, 4096])
def test_each_block_has_its_constant(block: int) -> None:
    model: Any = build_model(scenario(TIED, quant={"double": False, "block_size": block}), CPU, NoMeter())
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.quant_state.absmax.numel() == -(-176 * 64 // block)
    # 4 bits and a 32-bit constant per block; only the matrices that are not whole blocks have a little more
    assert bits_per_parameter(model) == pytest.approx(4 + 32 / block, rel=0.02)


def test_tied_embeddings_are_one_tensor() -> None:
    model: Any = build_model(scenario(TIED), CPU, NoMeter())
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_sixteen_bit_base_has_sixteen_bits_per_parameter() -> None:
    model = build_model(scenario(TIED, method="lora"), CPU, NoMeter())
    assert bits_per_parameter(model) == 16
    assert count_parameters(model).quantized == 0


def test_names_cover_every_parameter_and_buffer() -> None:
    names = Names()
    model = build_model(scenario(TIED), CPU, names)
    known = set(names.found)
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.untyped_storage().data_ptr() in known


def test_the_skeleton_holds_no_memory() -> None:
    assert all(parameter.is_meta for parameter in skeleton(scenario(TIED)).parameters())


def test_a_directory_without_weights_cannot_be_loaded(tmp_path: Path) -> None:
    transformers_config(scenario(TIED)).save_pretrained(tmp_path)
    with pytest.raises(CannotRun, match="cannot load"):
        build_model(scenario(str(tmp_path), load="checkpoint"), CPU, NoMeter())


def test_a_model_type_that_transformers_does_not_know() -> None:
    with pytest.raises(UsageError, match="model_type 'lama' is unknown"):
        transformers_config(scenario(TIED | {"model_type": "lama"}))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("rms_norm_eps", "1e-05", "expected float, got str"),  # its own check of the configuration
        ("rope_theta", None, "unsupported operand"),  # its modules
        ("hidden_act", "no-such", "no-such"),
    ],
)
def test_a_configuration_that_transformers_refuses_is_the_configurations_error(
    key: str, value: object, reason: str
) -> None:
    with pytest.raises(UsageError, match="transformers cannot build 'llama'") as caught:
        skeleton(scenario(TIED | {key: value}))
    assert reason in caught.value.hint
