"""Optimizers that are not modelled: what stands in for them, and by how much that is too high."""

from pathlib import Path

import pytest

from vramplan.importers.imported import Imported
from vramplan.targets import resolve

LLAMA_2 = 6_738_415_616  # parameters
AXOLOTL = "base_model: llama-2-7b\nmicro_batch_size: 1\nbf16: true\noptimizer: {}\n"
TRL = "model_name_or_path: llama-2-7b\ndtype: bfloat16\noptim: {}\n"
FACTORY = "model_name_or_path: llama-2-7b\nstage: sft\nfinetuning_type: full\nbf16: true\noptim: {}\n"


def read(folder: Path, text: str) -> Imported:
    file = folder / "run.yaml"
    file.write_text(text)
    origin = resolve(str(file)).origin
    assert origin is not None
    return origin


@pytest.mark.parametrize(
    ("name", "tensors"),
    # two states of low rank; with LOMO no states, and gradients that go one by one
    [
        ("galore_adamw", 2),
        ("galore_adamw_layerwise", 3),
        ("q_galore_adamw8bit", 2),
        ("apollo_adamw", 2),
        ("lomo", 3),
        ("adalomo", 3),
    ],
)
def test_a_lean_optimizer_makes_full_fine_tuning_an_upper_bound(tmp_path: Path, name: str, tensors: int) -> None:
    for text, element in ((AXOLOTL, 2), (TRL, 2), (FACTORY, 4)):  # LLaMA-Factory casts what is trained to fp32
        origin = read(tmp_path, text.format(name))
        assert origin.above(tokens=1) == tensors * element * LLAMA_2
        assert any(f"'{name}' keeps less than adamw_torch" in warning for warning in origin.warnings)


def test_with_adapters_it_is_not_known(tmp_path: Path) -> None:
    origin = read(tmp_path, TRL.format("lomo") + "use_peft: true\n")
    assert origin.above(tokens=1) == 0
    assert any("the states of 'lomo' are not known" in warning for warning in origin.warnings)
