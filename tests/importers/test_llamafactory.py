"""LLaMA-Factory's files: what is cast, and which of them train at all."""

from pathlib import Path

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
