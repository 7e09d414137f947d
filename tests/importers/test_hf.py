"""Attention by transformers' names, and what packing needs under each."""

import json
from pathlib import Path

import pytest

from vramplan.catalog.models import catalog_config
from vramplan.targets import resolve


@pytest.mark.parametrize(
    ("name", "attention", "warnings"),
    [
        ("flash_attention_2", "flash_attention_2", []),
        ("flash_attention_2@v1", "flash_attention_2", []),
        ("kernels-community/flash-attn", "flash_attention_2", []),
        ("kernels-community/flash-attn2@main:flash_attn_varlen_func", "flash_attention_2", []),
        ("flash_attention_3", "flash_attention_2", ["not modelled"]),
        ("flash_attention_4", "flash_attention_2", ["not modelled"]),
        ("kernels-community/vllm-flash-attn3", "flash_attention_2", ["not modelled"]),
        ("somebody/flash-attn9", "flash_attention_2", ["not modelled"]),
        ("sdpa", "sdpa", ["kept apart by a mask"]),
        ("eager", "eager", ["kept apart by a mask"]),
        ("kernels-community/metal-sdpa", "sdpa", ["not modelled", "kept apart by a mask"]),
    ],
)
def test_packing_needs_no_mask_under_any_flash_attention(
    tmp_path: Path, name: str, attention: str, warnings: list[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model_name_or_path: llama-2-7b\ndataset_name: d\npacking: true\nattn_implementation: {name}\n")
    target = resolve(str(file))
    assert target.scenarios[0].attention == attention
    assert target.origin is not None
    assert len(target.origin.warnings) == len(warnings)
    assert all(words in text for words, text in zip(warnings, target.origin.warnings, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "dataset_name: d\nuse_peft: true\nlora_r: 8\nmodel_name_or_path: ",
        "template: llama2\nbf16: true\nmodel_name_or_path: ",
        "adapter: lora\nsequence_len: 512\nmicro_batch_size: 1\nlora_r: 8\nlora_target_linear: true\nbase_model: ",
        "adapter: qlora\nload_in_4bit: true\nsequence_len: 512\nmicro_batch_size: 1\nlora_r: 8\n"
        "lora_target_linear: true\nbnb_config_kwargs: {bnb_4bit_quant_type: fp4}\nbase_model: ",
    ],
    ids=["TRL", "LLaMA-Factory", "axolotl", "axolotl, asked otherwise"],
)
def test_adapters_of_a_checkpoint_that_is_quantised_already(tmp_path: Path, text: str) -> None:
    """transformers keeps what config.json says, whatever the file asks for."""
    own = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (tmp_path / "four").mkdir()
    config = {**catalog_config("llama-2-7b"), "quantization_config": own}
    (tmp_path / "four" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "run.yaml").write_text(f"{text}four\n", encoding="utf-8")
    (scenario,) = resolve(str(tmp_path / "run.yaml")).scenarios
    assert (scenario.method.value, scenario.quant.type.value, scenario.quant.double) == ("qlora", "nf4", False)
