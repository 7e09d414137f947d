"""Adapters that the real peft writes: the same number of trained parameters in its model and in the prediction."""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import tiny_models

import vramplan
from tests.predict.real_models import DEEPSEEK, LLAMA, MIXTRAL, QWEN3_MOE
from vramplan.targets import resolve

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

CONFIGS: dict[str, dict[str, Any]] = {
    "names": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"r": 8, "target_modules": "all-linear", "lora_dropout": 0.1},
    "pattern": {"r": 2, "target_modules": r".*\.mlp\.(gate|up|down)_proj"},
    "unsloth": {
        "r": 16,
        "target_modules": r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|k_proj).*?)|"
        r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|o_proj)))",
    },
    "default": {"r": 8},
    "head": {"r": 4, "target_modules": ["o_proj", "lm_head"]},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_trained_parameters_are_pefts(name: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(**tiny_models.LLAMA)
    model = transformers.AutoModelForCausalLM.from_config(config)
    written = peft.LoraConfig(task_type="CAUSAL_LM", base_model_name_or_path="../base", **CONFIGS[name])
    written.save_pretrained(tmp_path / "adapter")
    lora = peft.LoraConfig(task_type="CAUSAL_LM", **CONFIGS[name])
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(tiny_models.LLAMA))
    trained, _ = peft.get_peft_model(model, lora).get_nb_trainable_parameters()

    target = resolve(str(tmp_path / "adapter"), {"method": "lora"})
    assert target.origin is not None
    assert target.origin.format == "peft adapter"
    assert vramplan.predict(target.scenarios[0], device="cpu").parameters.trainable == trained
    assert resolve(str(tmp_path / "adapter" / "adapter_config.json")).scenarios[0].name == "adapter"


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")
@pytest.mark.parametrize("config", [LLAMA, MIXTRAL, QWEN3_MOE, DEEPSEEK], ids=itemgetter("model_type"))
def test_a_list_of_every_linear_layer_is_what_peft_trains(config: dict[str, Any], tmp_path: Path) -> None:
    """axolotl 0.19.0 loaders/adapter.py find_all_linear_names, and the list that it hands to peft."""
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if "Linear" in type(module).__name__}
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=sorted(linear - {"lm_head"}))
    trained, _ = peft.get_peft_model(model, lora).get_nb_trainable_parameters()
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = tmp_path / "run.yaml"
    file.write_text("base_model: .\nadapter: lora\nlora_r: 4\nlora_target_linear: true\n")
    assert vramplan.predict(resolve(str(file)).scenarios[0], device="cpu").parameters.trainable == trained


def test_the_model_beside_the_adapter_stands_in_for_a_path_of_another_machine(tmp_path: Path) -> None:
    peft.LoraConfig(base_model_name_or_path="/home/somebody/model", target_modules=["q_proj"]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny_models.LLAMA))
    target = resolve(str(tmp_path))
    assert target.origin is not None
    assert target.scenarios[0].architecture.hidden == 64
    assert any(row.note == "the config.json beside the adapter" for row in target.origin.read)


def test_a_base_in_the_home_directory_comes_before_the_model_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    peft.LoraConfig(base_model_name_or_path="~/base", target_modules=["q_proj"]).save_pretrained(tmp_path / "adapter")
    for folder, hidden in (("base", 64), ("adapter", 32)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "config.json").write_text(json.dumps(tiny_models.LLAMA | {"hidden_size": hidden}))
    assert resolve(str(tmp_path / "adapter")).scenarios[0].architecture.hidden == 64


@pytest.mark.parametrize("name", ["names", "all-linear", "pattern", "default-targets", "warned"])
def test_the_examples_are_what_peft_reads(name: str) -> None:
    folder = Path(__file__).parent / "examples" / "peft" / name
    read = peft.LoraConfig.from_pretrained(str(folder))
    scenario = resolve(str(folder)).scenarios[0]
    assert (scenario.lora.rank, scenario.lora.dropout) == (read.r, read.lora_dropout)
