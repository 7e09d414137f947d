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
