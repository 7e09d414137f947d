"""Which of TRL's trainers a file is for."""

from pathlib import Path

import pytest

from vramplan.importers.vocabulary.trl import SFT_ONLY, TRL
from vramplan.targets import resolve


@pytest.mark.parametrize(
    ("keys", "told"), [("dataset_name: d", False), ("packing: false", True), ("loss_type: nll", True)]
)
def test_sft_trainer_is_assumed_aloud_where_no_key_says_it(tmp_path: Path, keys: str, told: bool) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model_name_or_path: llama-2-7b\nuse_peft: true\n{keys}\n")
    origin = resolve(str(file)).origin
    assert origin is not None
    (why,) = [row.note for row in origin.assumed if row.ours == "stack.base"]
    assert ("no key says which trainer" in why) is not told


def test_words_of_other_trainers_are_not_sfts() -> None:
    trl = pytest.importorskip("trl")
    sft = set(trl.SFTConfig.__dataclass_fields__)
    assert SFT_ONLY - sft == {"max_seq_length"}  # of older releases
    assert not sft & TRL.refused.keys()
    others = (trl.DPOConfig, trl.KTOConfig, trl.GRPOConfig, trl.RLOOConfig, trl.RewardConfig)
    assert not any(SFT_ONLY & set(other.__dataclass_fields__) for other in others)


def test_modules_that_a_model_has_not_are_passed_over_as_peft_does(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model_name_or_path: llama-2-7b\nuse_peft: true\nlora_modules_to_save: [lm_head, wte]\n")
    target = resolve(str(file))
    assert target.scenarios[0].lora.modules_to_save == ("lm_head",)
    assert target.origin is not None
    assert any("llama-2-7b has no module wte" in text for text in target.origin.warnings)
