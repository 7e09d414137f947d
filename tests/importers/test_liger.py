"""Liger's kernels as TRL, axolotl and LLaMA-Factory ask for them."""

from pathlib import Path

import pytest

from vramplan.cli import main
from vramplan.errors import UsageError
from vramplan.stacks import LayerKernel, LossKernel
from vramplan.targets import Target, resolve

TRL = "model_name_or_path: {}\nuse_peft: true\nlora_target_modules: all-linear\nuse_liger_kernel: true\n"
AXOLOTL = (
    "base_model: {}\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\nlora_alpha: 8\nmicro_batch_size: 1\n"
    "sequence_len: 512\n"
)
FACTORY = "model_name_or_path: {}\nstage: sft\nfinetuning_type: lora\ncutoff_len: 512\n"


def read(folder: Path, text: str, model: str = "llama-2-7b") -> Target:
    file = folder / "run.yaml"
    file.write_text(text.format(model))
    return resolve(str(file))


def test_trl_keeps_its_own_loss(tmp_path: Path) -> None:
    stack = read(tmp_path, TRL).scenarios[0].stack
    assert stack.loss is LossKernel.TILED
    assert stack.kernels == tuple(LayerKernel)


def test_the_trainers_configuration_chooses(tmp_path: Path) -> None:
    chosen = TRL + "liger_kernel_config: {{rope: false, swiglu: false}}\n"
    assert read(tmp_path, chosen).scenarios[0].stack.kernels == (LayerKernel.RMS_NORM,)
    with pytest.raises(UsageError, match="liger_kernel_config"):
        read(tmp_path, TRL + "liger_kernel_config: all\n")


def test_axolotl_names_each_and_needs_its_plugin(tmp_path: Path) -> None:
    keys = AXOLOTL + "liger_rope: true\nliger_glu_activation: true\nliger_layer_norm: true\n"
    plugin = "plugins: [axolotl.integrations.liger.LigerPlugin]\n"
    assert read(tmp_path, keys + plugin).scenarios[0].stack.kernels == (LayerKernel.ROPE, LayerKernel.MLP)
    without = read(tmp_path, keys)
    assert without.scenarios[0].stack.kernels == ()
    assert without.origin is not None
    assert any("liger_rope, liger_glu_activation: true does nothing" in text for text in without.origin.warnings)


@pytest.mark.parametrize("key", ["enable_liger_kernel", "use_liger_kernel"])
def test_llama_factorys_switch_and_the_trainers_mean_all(tmp_path: Path, key: str) -> None:
    stack = read(tmp_path, FACTORY + f"{key}: true\n").scenarios[0].stack
    assert stack.loss is LossKernel.LIGER
    assert stack.kernels == tuple(LayerKernel)


def test_a_configuration_without_the_switch_is_ignored(tmp_path: Path) -> None:
    for text in (TRL.replace("use_liger_kernel: true\n", ""), FACTORY + "enable_liger_kernel: true\n"):
        origin = read(tmp_path, text + "liger_kernel_config: {{rope: false}}\n").origin
        assert origin is not None
        assert [row.key for row in origin.ignored if row.key.startswith("liger")] == ["liger_kernel_config"]
        assert not any("liger_kernel_config" in text for text in origin.warnings)


def test_the_gated_mlp_is_called_as_in_its_family(tmp_path: Path) -> None:
    text = TRL + "liger_kernel_config: {{swiglu: false}}\n"
    assert LayerKernel.MLP not in read(tmp_path, text).scenarios[0].stack.kernels
    assert LayerKernel.MLP in read(tmp_path, text, "gemma-2-2b").scenarios[0].stack.kernels


def test_ligers_loss_can_be_switched_off_and_sft_has_none(tmp_path: Path) -> None:
    config = "use_liger_kernel: true\nliger_kernel_config: {{fused_linear_cross_entropy: %s}}\n"
    stack = read(tmp_path, FACTORY + config % "false").scenarios[0].stack
    assert (stack.loss, stack.kernels) == (LossKernel.TORCH, tuple(LayerKernel))
    with pytest.raises(UsageError, match="which TRL's trainers refuse"):
        read(tmp_path, TRL.replace("use_liger_kernel: true\n", "") + config % "true")


def test_what_liger_has_not_for_a_family_stays_the_familys_own(tmp_path: Path) -> None:
    granite = read(tmp_path, FACTORY + "enable_liger_kernel: true\n", "granite-3.3-8b").scenarios[0].stack
    assert (granite.loss, granite.kernels) == (LossKernel.TORCH, tuple(LayerKernel))
    nothing = read(tmp_path, FACTORY + "enable_liger_kernel: true\n", "starcoder2-7b").scenarios[0].stack
    assert (nothing.loss, nothing.kernels) == (LossKernel.TORCH, ())


def test_a_family_that_llama_factory_does_not_know_stays_its_own(tmp_path: Path) -> None:
    """liger-kernel 0.8.5 has deepseek_v2, and transformers' switch asks it; LLaMA-Factory's own list has not."""
    target = read(tmp_path, FACTORY + "enable_liger_kernel: true\n", "deepseek-v2-lite")
    assert (target.scenarios[0].stack.loss, target.scenarios[0].stack.kernels) == (LossKernel.TORCH, ())
    assert target.origin is not None
    assert any("LLaMA-Factory has no Liger kernels for deepseek_v2" in text for text in target.origin.warnings)
    both = read(tmp_path, FACTORY + "enable_liger_kernel: true\nuse_liger_kernel: true\n", "deepseek-v2-lite")
    assert both.scenarios[0].stack.kernels == (LayerKernel.RMS_NORM, LayerKernel.MLP)


def test_families_without_kernels_are_told(tmp_path: Path) -> None:
    target = read(tmp_path, TRL, "starcoder2-7b")
    assert target.scenarios[0].stack.kernels == ()
    assert target.origin is not None
    assert any("Liger has nothing for starcoder2" in text for text in target.origin.warnings)


PLUGIN = "plugins: [axolotl.integrations.liger.LigerPlugin]\n"


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        (AXOLOTL + "lora_target_modules: [down_proj]\nliger_glu_activation: true\n" + PLUGIN, False),
        (FACTORY + "lora_target: down_proj\nbf16: true\nenable_liger_kernel: true\n", False),
        (FACTORY + "lora_target: down_proj\nbf16: true\nuse_liger_kernel: true\n", True),  # the Trainer's, after peft
        (TRL + "dtype: bfloat16\nlora_dropout: 0\n", True),
    ],
)
def test_wrapped_experts_stop_only_what_patches_after_peft(
    tmp_path: Path, text: str, stops: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path, text, "qwen3-30b-a3b")
    main(["predict", str(tmp_path / "run.yaml"), "--gpu", "h200"])
    answer, error = capsys.readouterr()
    assert not error
    assert ("once peft has wrapped them" in answer) is stops
    main(["plan", str(tmp_path / "run.yaml"), "--gpu", "h200", "--goal", "max-seq"])
    answer, _ = capsys.readouterr()
    assert ("once peft has wrapped them" in answer) is stops
