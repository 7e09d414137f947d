"""Which of TRL's trainers a file is for."""

import inspect
from pathlib import Path

import pytest

from vramplan.importers.trl_trainer import _DPO_LOSSES
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


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("beta: 0.1", "beta is DPOTrainer's (KTO, GRPO and RLOO have it too)"),
        ("loss_type: hinge", "loss_type is DPOTrainer's"),
        ("loss_type: [sigmoid, sft]", "loss_type is DPOTrainer's"),
    ],
)
def test_a_key_of_dpo_trainer_tells(tmp_path: Path, keys: str, why: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model_name_or_path: llama-2-7b\nuse_peft: true\nload_in_4bit: true\n{keys}\n")
    target = resolve(str(file))
    assert target.scenarios[0].stack.base == "trl-dpo"
    assert target.origin is not None
    (note,) = [row.note for row in target.origin.assumed if row.ours == "stack.base"]
    assert note.startswith(why)


def test_the_hint_keeps_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model_name_or_path: llama-2-7b\nuse_peft: true\nload_in_4bit: true\nmax_grad_norm: 0\n")
    stack = resolve(str(file), {"stack.base": "trl-dpo"}).scenarios[0].stack
    assert (stack.base, stack.clip) == ("trl-dpo", False)


def test_the_losses_are_those_of_the_library() -> None:
    trainer = pytest.importorskip("trl.trainer.dpo_trainer")
    code = inspect.getsource(trainer.DPOTrainer._compute_loss)
    assert {name for name in _DPO_LOSSES if f'loss_type == "{name}"' in code} == set(_DPO_LOSSES)
    assert code.count("loss_type == ") == len(_DPO_LOSSES)


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
