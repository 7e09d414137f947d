"""Attention by transformers' names, and what packing needs under each."""

from pathlib import Path

import pytest

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
