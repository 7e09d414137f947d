"""Modules that get adapters, by pattern."""

from pathlib import Path

import pytest

from vramplan.errors import UsageError
from vramplan.targets import resolve

#: axolotl examples/gemma3/gemma-3-4b-vision-qlora.yml; transformers 5.17 has the language model below `model`.
PATTERN = r"'model.language_model.layers.[\d]+.(mlp|cross_attn|self_attn).(up|down|gate|q|k|v|o)_proj'"
TEXT = "adapter: qlora\nload_in_4bit: true\nlora_r: 8\nlora_alpha: 8\nsequence_len: 512\n"


def test_a_pattern_for_a_model_that_also_sees_finds_the_language_models_modules(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"base_model: google/gemma-3-4b-it\n{TEXT}lora_target_modules: {PATTERN}\n")
    (scenario,) = resolve(str(file)).scenarios
    assert set(scenario.lora.targets) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_and_none_in_a_model_that_does_not(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"base_model: llama-2-7b\n{TEXT}lora_target_modules: {PATTERN}\n")
    with pytest.raises(UsageError, match="matches no module of llama-2-7b"):
        resolve(str(file))
