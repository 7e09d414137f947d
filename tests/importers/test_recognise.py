"""Which trainer a file belongs to follows from its keys, never from its name."""

from pathlib import Path
from typing import Any

import pytest

from vramplan.errors import UsageError
from vramplan.importers import Format, recognise
from vramplan.targets import resolve


@pytest.mark.parametrize(
    ("content", "format"),
    [
        ({"model_name_or_path": "x", "use_peft": True}, Format.TRL),
        ({"model_name_or_path": "x", "load_in_4bit": True}, Format.TRL),
        ({"model_name_or_path": "x", "dataset_name": "d"}, Format.TRL),
        ({"model_name_or_path": "x", "template": "llama3"}, Format.LLAMAFACTORY),
        ({"model_name_or_path": "x", "max_length": 512}, Format.TRL),
        ({"model_name_or_path": "x", "use_peft": True, "preprocessing_num_workers": 12}, Format.TRL),  # the handbook's
        ({"model_name_or_path": "x", "dataset_mixer": {"d": 1.0}, "overwrite_cache": True}, Format.TRL),
        ({"finetuning_type": "lora"}, Format.LLAMAFACTORY),
        ({"model_name_or_path": "x", "template": "llama3", "max_length": 512}, Format.LLAMAFACTORY),  # generation's
        ({"base_model": "x"}, Format.AXOLOTL),
        ({"base_model": "x", "attn_implementation": "sdpa", "load_in_4bit": True}, Format.AXOLOTL),
        ({"model": {"_component_": "torchtune.models.llama2.llama2_7b"}}, Format.TORCHTUNE),
        ({"policy_model": {"_component_": "torchtune.models.mistral.mistral_7b"}}, Format.TORCHTUNE),  # PPO has two
        ({"peft_type": "LORA", "base_model_name_or_path": "x", "r": 8}, Format.PEFT),
        ({"model": "llama-2-7b"}, None),
        ({"model": "llama-2-7b", "packing": True}, None),  # a scenario's own errors name the unknown key
        ({"batch": 2}, None),
        ({}, None),
    ],
)
def test_the_keys_tell(content: dict[str, Any], format: Format | None) -> None:
    assert recognise(content, "file.yaml") is format


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"learning_rate": 1}, "file.yaml: not a configuration that can be recognised: no key names a model"),
        ({"model_name_or_path": "x", "bf16": True}, "TRL and LLaMA-Factory both have model_name_or_path"),
        ({"model_name_or_path": "x", "overwrite_cache": True}, "TRL and LLaMA-Factory both have model_name_or_path"),
        (
            {"model_name_or_path": "x", "use_peft": True, "cutoff_len": 512},
            "file.yaml: keys of several formats (TRL: use_peft; LLaMA-Factory: cutoff_len)",
        ),
        ({"model": "x", "base_model": "y"}, "keys of several formats (axolotl: base_model; vramplan: model)"),
    ],
)
def test_what_is_ambiguous_or_unknown_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recognise(content, "file.yaml")
    assert message in caught.value.message
    for known in ("vramplan scenario", "TRL", "axolotl", "LLaMA-Factory", "torchtune", "adapter_config.json"):
        assert known in caught.value.hint


def test_the_name_of_the_file_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "axolotl.yaml"
    file.write_text("model_name_or_path: meta-llama/Llama-2-7b-hf\ntemplate: llama2\nbf16: true\n")
    origin = resolve(str(file)).origin
    assert origin is not None
    assert origin.format == "LLaMA-Factory"
    assert resolve("llama-2-7b").origin is None
