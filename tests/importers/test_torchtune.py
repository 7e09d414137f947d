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
