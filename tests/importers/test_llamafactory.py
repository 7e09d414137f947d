"""LLaMA-Factory's files: what is cast, and which of them train at all."""

from pathlib import Path

import pytest

from vramplan.scenario import DType, Scenario
from vramplan.targets import resolve

FILE = "model_name_or_path: Qwen/Qwen2.5-0.5B\nstage: sft\ntemplate: qwen\ndataset: d\n"


def scenario(folder: Path, keys: str) -> Scenario:
    file = folder / "run.yaml"
    file.write_text(FILE + keys)
    return resolve(str(file)).single("test")


def test_pure_bf16_leaves_modules_that_are_trained_whole_as_the_base_has_them(tmp_path: Path) -> None:
    """model/adapter.py casts nothing then, and peft's cast_adapter_dtype the tuner's layers alone."""
    pure = scenario(tmp_path, "additional_target: lm_head\npure_bf16: true\n")
    assert (pure.dtype, pure.lora.dtype, pure.lora.modules_dtype) == (DType.BFLOAT16, DType.FLOAT32, None)
    mixed = scenario(tmp_path, "additional_target: lm_head\nbf16: true\n")
    assert (mixed.dtype, mixed.lora.dtype, mixed.lora.modules_dtype) == (DType.BFLOAT16, DType.FLOAT32, DType.FLOAT32)


@pytest.mark.parametrize("keys", ["", "do_train: true\n", "do_train: true\ndo_predict: true\n"])
def test_a_file_that_says_or_leaves_open_that_it_trains_is_read(tmp_path: Path, keys: str) -> None:
    assert scenario(tmp_path, keys).batch == 8


def test_a_file_of_a_chat_that_says_that_it_trains_is_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model_name_or_path: Qwen/Qwen2.5-0.5B\ntemplate: qwen\ndo_train: true\n")
    assert resolve(str(file)).single("test").method == "lora"
