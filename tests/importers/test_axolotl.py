"""What axolotl's loader leaves in fp32, and what its own switches do."""

from pathlib import Path

import pytest

from vramplan.predict.base import prepared_element
from vramplan.targets import Target, resolve

KEYS = "base_model: {}\nmicro_batch_size: 1\nsequence_len: 512\nbf16: true\n"
ADAPTER = KEYS + "lora_r: 8\nlora_target_modules: [q_proj]\nlora_qkv_kernel: false\n"
QLORA = ADAPTER + "adapter: qlora\nload_in_4bit: true\n"


def read(folder: Path, text: str, model: str = "llama-3.1-8b") -> Target:
    file = folder / "run.yaml"
    file.write_text(text.format(model))
    return resolve(str(file))


def warnings(target: Target) -> tuple[str, ...]:
    assert target.origin is not None
    return target.origin.warnings


def fp32(target: Target) -> set[str]:
    """The kinds of weights that the preparation leaves in fp32."""
    (scenario,) = target.scenarios
    return {w.kind.value for w, _ in scenario.architecture.counted if prepared_element(w, scenario) == 4}


def test_a_mixtures_experts_stay_fp32(tmp_path: Path) -> None:
    assert fp32(read(tmp_path, QLORA, "qwen3-30b-a3b")) >= {"experts"}
    assert not fp32(read(tmp_path, QLORA, "qwen3-30b-a3b")) & {"norm", "embedding", "head"}


def test_four_bits_without_qlora_make_linear_layers_fp32(tmp_path: Path) -> None:
    target = read(tmp_path, ADAPTER + "adapter: lora\nload_in_4bit: true\n")
    assert target.scenarios[0].method == "lora"
    assert fp32(target) == {"linear"}
    assert any("makes the linear layers fp32" in text for text in warnings(target))
    assert fp32(read(tmp_path, ADAPTER + "adapter: lora\n")) == set()


@pytest.mark.parametrize(("bits", "kinds"), [("4", {"embedding", "head"}), ("8", set())])
def test_embeddings_that_skip_the_upcast_are_never_cast_back(tmp_path: Path, bits: str, kinds: set[str]) -> None:
    """Neither of loaders/model.py's two calls of _convert_embedding_modules_dtype sees them, and peft casts between."""
    method = "adapter: qlora\nload_in_4bit: true\n" if bits == "4" else "adapter: lora\nload_in_8bit: true\n"
    found = fp32(read(tmp_path, ADAPTER + method + "embeddings_skip_upcast: true\n"))
    assert found & {"embedding", "head"} == kinds


@pytest.mark.parametrize(
    ("keys", "evaluates"),
    [
        ("val_set_size: 0.1", False),  # TrainingArguments' own eval_strategy is "no"
        ("val_set_size: 0.1\neval_strategy: 'no'", False),
        ("val_set_size: 0.1\neval_strategy: epoch", True),
        ("val_set_size: 0.1\nevaluation_strategy: steps", True),
        ("val_set_size: 0.1\neval_steps: 50", True),
        ("val_set_size: 0.1\nevals_per_epoch: 0", False),
        ("val_set_size: 0.1\nevals_per_epoch: 1", False),  # 1 / (1 x 1) is not below 1
        ("val_set_size: 0.1\nevals_per_epoch: 1\nnum_epochs: 3", True),
        ("test_datasets: [{{path: d}}]\neval_steps: 50", True),
        ("val_set_size: 0\neval_strategy: epoch", False),
    ],
)
def test_it_evaluates_where_there_is_data_and_a_time(tmp_path: Path, keys: str, evaluates: bool) -> None:
    target = read(tmp_path, f"{QLORA}{keys}\neval_batch_size: 4\n")
    (scenario,) = target.scenarios
    assert (scenario.evaluation is not None and scenario.evaluation.batch == 4) is evaluates
    assert target.origin is not None
    rows = ", ".join(row.key for row in (*target.origin.read, *target.origin.ignored)).split(", ")
    assert all(rows.count(line.partition(":")[0]) == 1 for line in keys.splitlines())


@pytest.mark.parametrize(
    ("bits", "saved"),
    # 48 layers of 128 experts of 3 x 2048 x 768; of 2 bytes 9/16 stay with 4 bits and their constants, 1 with 8
    [("adapter: qlora\nload_in_4bit: true\n", 2 - 9 / 16), ("adapter: lora\nload_in_8bit: true\n", 1)],
)
def test_quantised_experts_make_the_prediction_an_upper_bound(tmp_path: Path, bits: str, saved: float) -> None:
    target = read(tmp_path, ADAPTER + bits + "quantize_moe_experts: true\n", "qwen3-30b-a3b")
    (text,) = warnings(target)
    assert "an upper bound" in text
    assert target.origin is not None
    assert target.origin.above(tokens=1) == 48 * 128 * 3 * 2048 * 768 * saved
    assert fp32(target) == set()


def test_without_experts_nothing_more_is_quantised(tmp_path: Path) -> None:
    target = read(tmp_path, QLORA + "quantize_moe_experts: true\n")
    assert warnings(target) == ()
    assert target.scenarios[0].stack.upcast == "rest"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", True),
        ("eager_attention: true", True),
        ("flash_attention: true", False),
        ("plugins: [axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin]", False),
        ("plugins: [axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin]\ncut_cross_entropy: false", True),
        ("bf16: false", False),  # everything is fp32
    ],
)
def test_full_fine_tuning_keeps_fp32_where_nothing_casts_back(tmp_path: Path, keys: str, told: bool) -> None:
    text = KEYS.replace("bf16: true\n", "") if "bf16" in keys else KEYS
    # two tables of 128,256 x 4,096 and 65 norms of 4,096: 1,050,939,392, of 4 B more each
    words = "fp32 under sdpa and eager (axolotl 0.19.0 loaders/model.py): 1,050,939,392 parameters, whose weights and"
    found = [text for text in warnings(read(tmp_path, f"{text}{keys}\n")) if words in text]
    assert len(found) == told
    assert all("3.92 GiB more" in text for text in found)


def test_a_checkpoint_that_is_dequantised_is_one_of_16_bits(tmp_path: Path) -> None:
    """axolotl's examples/gpt-oss."""
    keys = "flash_attention: true\nmodel_quantization_config: Mxfp4Config\n"
    target = read(tmp_path, KEYS + keys + "model_quantization_config_kwargs: {{dequantize: true}}\n", "gpt-oss-20b")
    assert (target.scenarios[0].quant.type, target.scenarios[0].dtype) == ("none", "bfloat16")
    assert warnings(target) == ()
    (tmp_path / "run.yaml").write_text((KEYS + keys).format("gpt-oss-20b"))
    assert resolve(str(tmp_path / "run.yaml"), {"model_quantization_config": None}).scenarios[0].quant.type == "none"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("model_config: {{sliding_window: 64}}", ["changes the model"]),  # RemappedParameters: an alias
        ("overrides_of_model_config: {{sliding_window: 64}}", ["changes the model"]),
        ("unsloth_rope: false", []),
        ("lora_exclude_modules: [k_proj]", []),
    ],
)
def test_keys_under_other_names_are_known(tmp_path: Path, keys: str, words: list[str]) -> None:
    found = warnings(read(tmp_path, f"{QLORA}{keys}\n"))
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))
