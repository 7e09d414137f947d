"""torchtune's builders: which attention each has, and which published model has its dimensions."""

from pathlib import Path

import pytest

from vramplan.targets import Target, resolve

FILE = """
model: {_component_: torchtune.models.%s, lora_attn_modules: [q_proj]}
tokenizer: {max_seq_len: 512}
optimizer: {_component_: torch.optim.AdamW}
batch_size: 1
dtype: bf16
"""


def read(folder: Path, component: str) -> Target:
    file = folder / "run.yaml"
    file.write_text(FILE % component)
    return resolve(str(file))


@pytest.mark.parametrize(
    ("component", "attention", "told"),
    [("gemma2.lora_gemma2_2b", "eager", True), ("gemma.lora_gemma_2b", "sdpa", False)],
)
def test_gemma_2_has_an_attention_of_its_own(tmp_path: Path, component: str, attention: str, *, told: bool) -> None:
    target = read(tmp_path, component)
    assert target.scenarios[0].attention == attention
    assert target.origin is not None
    assert any("fp32 mask" in text for text in target.origin.warnings) is told


#: vocab_size, num_layers, num_heads, num_kv_heads, embed_dim, intermediate_dim: models/qwen2/_model_builders.py.
QWEN2 = {
    "0_5b": (151_936, 24, 14, 2, 896, 4864),
    "1_5b": (151_936, 28, 12, 2, 1536, 8960),
    "7b": (152_064, 28, 28, 4, 3584, 18_944),
}


@pytest.mark.parametrize("size", QWEN2)
def test_qwen2_is_read_as_the_model_of_its_dimensions(tmp_path: Path, size: str) -> None:
    config = read(tmp_path, f"qwen2.lora_qwen2_{size}").scenarios[0].model.config
    keys = ("vocab_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size")
    assert tuple(config[key] for key in (*keys, "intermediate_size")) == QWEN2[size]
    assert config["tie_word_embeddings"] is (size != "7b")
