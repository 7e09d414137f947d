import json
from pathlib import Path
from typing import Any

import pytest

from vramplan.errors import UsageError
from vramplan.optimizers import OPTIMIZERS
from vramplan.scenario import ATTENTION, Checkpointing, DType, QuantType, Scenario
from vramplan.scenario_file import (
    override,
    read_scenarios,
    scenario_from_mapping,
    scenario_yaml,
    scenarios_from_mapping,
)
from vramplan.scenario_schema import BLOCK_SIZES, json_schema
from vramplan.stacks import STACKS, Outputs, Upcast

TINY = {"model_type": "llama", "hidden_size": 64, "_name_or_path": "tiny"}


def one(**keys: Any) -> Any:
    return scenario_from_mapping({"model": TINY, **keys})


def test_the_defaults_are_those_of_the_contract() -> None:
    scenario = one()
    assert scenario.name == "tiny-qlora"
    assert (scenario.batch, scenario.seq, scenario.grad_accum, scenario.optimizer) == (1, 2048, 1, "adamw_torch")
    assert (scenario.quant.type, scenario.quant.double, scenario.quant.block_size) == (QuantType.NF4, True, 64)
    assert (scenario.lora.rank, scenario.lora.targets, scenario.lora.dropout) == (16, ("all-linear",), 0.0)
    assert (scenario.dtype, scenario.compute_dtype) == (DType.BFLOAT16, DType.BFLOAT16)
    assert (scenario.checkpointing, scenario.attention) == (Checkpointing.NON_REENTRANT, "sdpa")
    assert (scenario.stack.base, scenario.stack.upcast, scenario.stack.autocast) == ("hf-trainer", "all", "bfloat16")


def test_loaded_dtype_and_autocast_follow_the_compute_dtype() -> None:
    scenario = one(compute_dtype="float16")
    assert scenario.dtype is DType.FLOAT16
    assert scenario.stack.autocast == "float16"
    assert one(compute_dtype="float32").stack.autocast is False


def test_a_base_in_16_bits_is_not_prepared_for_k_bit_training() -> None:
    assert one(method="lora").stack.upcast is Upcast.NONE
    assert one(method="lora").quant.type is QuantType.NONE
    assert one(method="lora", stack={"base": "script", "upcast": "all"}).stack.upcast is Upcast.ALL


def test_trl_casts_the_adapters_of_a_quantised_model() -> None:
    assert one(stack="trl").lora.dtype is DType.BFLOAT16
    assert one(stack="trl", method="lora").lora.dtype is DType.FLOAT32
    assert one().lora.dtype is DType.FLOAT32


def test_a_sample_of_preference_training_is_a_pair() -> None:
    pairs = one(stack="trl-dpo", batch=3, seq=100)
    assert (pairs.sequences, pairs.tokens) == (6, 600)  # 3 pairs of 2 x 100 tokens
    assert one(batch=3).sequences == one(stack="trl-dpo", batch=3, method="inference").sequences == 3


def test_a_stack_can_be_changed_in_parts() -> None:
    stack = one(stack={"base": "script", "outputs": "freed"}).stack
    assert (stack.base, stack.outputs, stack.autocast) == ("script", Outputs.FREED, False)


@pytest.mark.parametrize("checkpointing", [True, False, "reentrant"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_the_printed_scenario_is_a_scenario(checkpointing: object, targets: object, tmp_path: Path) -> None:
    scenario = one(checkpointing=checkpointing, lora={"targets": targets}, gpu="rtx3090", stack="script")
    assert scenario_from_mapping(json.loads(json.dumps(scenario.to_mapping()))) == scenario
    file = tmp_path / "again.yaml"
    file.write_text(scenario_yaml(scenario))
    assert read_scenarios(file) == (scenario,)


def test_a_local_model_is_printed_as_its_configuration_never_as_a_path(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model/config.json").write_text(json.dumps(TINY | {"_name_or_path": "/home/somebody/secret"}))
    (tmp_path / "run.yaml").write_text("model: my-model\n")
    (scenario,) = read_scenarios(tmp_path / "run.yaml")
    assert scenario.model.path == str(tmp_path / "my-model")
    assert scenario.to_mapping()["model"] == {"model_type": "llama", "hidden_size": 64, "_name_or_path": "my-model"}
    assert str(tmp_path) not in json.dumps(scenario.to_mapping())


def test_a_matrix_is_every_combination_under_a_name_that_says_which() -> None:
    scenarios = scenarios_from_mapping(
        {"name": "run", "model": TINY, "matrix": {"quant.double": [True, False], "seq": [512, 1024]}}
    )
    assert [s.name for s in scenarios] == [
        "run-double=true-seq=512",
        "run-double=true-seq=1024",
        "run-double=false-seq=512",
        "run-double=false-seq=1024",
    ]
    assert [(s.quant.double, s.seq) for s in scenarios] == [(True, 512), (True, 1024), (False, 512), (False, 1024)]


def test_names_have_lists_and_sections_as_the_command_line_does() -> None:
    scenarios = scenarios_from_mapping(
        {"name": "run", "model": TINY, "matrix": {"lora": [{"rank": 8, "targets": ["q_proj", "v_proj"]}, {}]}}
    )
    assert [s.name for s in scenarios] == ["run-rank=8-targets=q_proj,v_proj", "run-lora={}"]


def test_a_configuration_in_a_matrix_goes_by_its_name() -> None:
    models = [{**TINY, "_name_or_path": "one"}, {**TINY, "_name_or_path": "org/two"}]
    assert [s.name for s in scenarios_from_mapping({"name": "run", "matrix": {"model": models}})] == [
        "run-model=one",
        "run-model=org/two",
    ]


def test_overrides_win_over_the_file_and_open_up_a_named_stack() -> None:
    changed = override({"stack": "script", "seq": 512}, {"seq": 1024, "stack.upcast": "none", "lora.rank": 8})
    assert changed == {"stack": {"base": "script", "upcast": "none"}, "seq": 1024, "lora": {"rank": 8}}


def test_an_override_leaves_its_input_alone() -> None:
    mapping = {"quant": {"double": True}}
    override(mapping, {"quant.double": False})
    assert mapping == {"quant": {"double": True}}


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    # case: keys, what the message names, what the hint offers
    "unknown key": ({"bacth": 2}, "bacth", "did you mean 'batch'?"),
    "unknown key below": ({"quant": {"typ": "nf4"}}, "quant.typ", "did you mean 'type'?"),
    "unknown value": ({"quant": {"type": "nf5"}}, "'nf5'", "did you mean 'nf4'?"),
    "negative batch": ({"batch": -1}, "batch: -1", ">= 1"),
    "huge integer": ({"seq": 2**70}, f"seq: {2**70}", "<="),
    "one more than the largest count": ({"new_tokens": 2**24 + 1}, f"new_tokens: {2**24 + 1}", f"<= {2**24}"),
    "a key of a section": ({"rank": 8}, "unknown key 'rank'", "did you mean 'lora.rank'?"),
    "a key of another section": ({"lora": {"double": True}}, "unknown key 'lora.double'", "allowed: lora.rank"),
    "more micro-batches than a step has": ({"grad_accum": 2**24}, f"grad_accum: {2**24}", "<= 65536"),
    "text for a number": ({"batch": "two"}, "batch: 'two'", "a whole number"),
    "a whole number with a point": ({"batch": 4.0}, "batch: 4.0 is not allowed", "write 4"),
    "a fraction": ({"batch": 1.5}, "batch: 1.5 is not allowed", "a whole number is wanted"),
    "rank 0": ({"lora": {"rank": 0}}, "lora.rank: 0", ">= 1"),
    "dropout 1": ({"lora": {"dropout": 1.0}}, "lora.dropout: 1.0", "< 1"),
    "gradients that the scaler refuses": (
        {"method": "full", "compute_dtype": "float16"},
        "Attempting to unscale FP16 gradients",
        "dtype: float32",
    ),
    "no targets": ({"lora": {"targets": []}}, "lora.targets", "all-linear"),
    "double without quantisation": (
        {"method": "inference", "quant": {"type": "none", "double": True}},
        "double",
        "nf4",
    ),
    "qlora without quantisation": ({"quant": {"type": "none"}}, "qlora", "method: lora"),
    "lora with quantisation": ({"method": "lora", "quant": {"type": "nf4"}}, "lora", "method: qlora"),
    "block size nobody has": ({"quant": {"block_size": 48}}, "48", "64"),
    "block size of a checkpoint": ({"quant": {"block_size": 128}}, "128", "load: random"),
    "unknown optimizer": ({"optimizer": "adamw_torhc"}, "adamw_torhc", "did you mean 'adamw_torch'?"),
    "adapters that TRL casts": ({"stack": "trl", "lora": {"dtype": "float32"}}, "float32", "leave lora.dtype out"),
    "pairs and a second model": ({"stack": "trl-dpo", "method": "full"}, "method full", "qlora or lora"),
    "pairs with another loss": (
        {"stack": {"base": "trl-dpo", "loss": "torch"}},
        "stack.loss torch",
        "leave stack.loss",
    ),
    "pairs whose logits are gathered": (
        {"stack": "trl-dpo", "eval": {"accumulate": 1}},
        "eval.accumulate",
        "eval.accumulate: 0",
    ),
    "unknown stack": ({"stack": "hf-trianer"}, "hf-trianer", "did you mean 'hf-trainer'?"),
    "unknown attention": ({"attention": "sdpa:fast"}, "sdpa:fast", "sdpa:flash"),
    "checkpointing by a word": ({"checkpointing": "yes"}, "yes", "reentrant"),
    "several GPUs": ({"deepspeed": "zero3"}, "deepspeed", "one device"),
    "matrix of a number": ({"matrix": {"seq": 512}}, "matrix", "[512, 1024]"),
    "matrix too large": (
        {"matrix": {"seq": list(range(1, 1001)), "batch": list(range(1, 1001))}},
        "1,000,000",
        "at most",
    ),
    "a value twice in a matrix": ({"matrix": {"seq": [64, 128, 64]}}, "matrix: seq has 64 twice", "once"),
    "false twice in a matrix": ({"matrix": {"quant.double": [False, False]}}, "quant.double has false twice", "once"),
    "a list for a number": ({"batch": [1, True, "two"]}, "batch: [1, true, two]", "a whole number"),
    "padding by a word": ({"padding": "left"}, "padding: 'left'", "true or false"),
    "padding where nothing is trained": ({"padding": True, "method": "inference"}, "method inference", "qlora, lora"),
    "padding for a kernel without masks": (
        {"padding": True, "attention": "sdpa:flash"},
        "sdpa:flash",
        "memory-efficient",
    ),
    "unknown model": ({"model": "lama-2-7b"}, "lama-2-7b", "llama-2-7b"),
    "model of a number": ({"model": 7}, "model: 7", ""),
    "a release before attention's kernels": ({"torch": "1.13"}, "torch: '1.13'", "from 2.0 on"),
    "a release that is none": ({"torch": "newest"}, "torch: 'newest'", "'2.11'"),
    "a candidate of a release": ({"torch": "2.11rc1"}, "torch: '2.11rc1'", "'2.11'"),
    "a release and more": ({"torch": "2.11 or so"}, "torch: '2.11 or so'", "'2.11'"),
    "a release that YAML takes for a number": ({"torch": 2.13}, "torch: 2.13 is a number", "quote it: torch: '2.13'"),
    "unknown card": ({"gpu": "rtx3080090"}, "rtx3080090", "rtx30"),
}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2.13", "2.13"),
        ("2.14.0+cu130", "2.14"),
        ("2.10.1", "2.10"),
        ("2.11+cpu", "2.11"),
        ("2.12.0a0+git123", "2.12"),
        ("2.13.0.dev20260101", "2.13"),
    ],
)
def test_of_a_release_of_torch_the_first_two_numbers_count(given: str, read: str) -> None:
    assert one(torch=given).torch == one(torch=given).to_mapping()["torch"] == read


@pytest.mark.parametrize("case", BAD)
def test_bad_keys_and_values_are_named_with_what_is_allowed(case: str) -> None:
    keys, named, offered = BAD[case]
    with pytest.raises(UsageError) as refused:
        scenarios_from_mapping({"model": TINY, **keys})
    assert named in refused.value.message
    assert offered in refused.value.hint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model: [", "not YAML"),
        ("model: a\nmodel: b\n", "written twice"),
        ("- 1\n- 2\n", "list"),
        ("", "holds nothing"),
        ("seq: 512\n", "no model"),
        ("model: tiny\n  seq: 5\n", r"not YAML: line 2, column 6"),
        ("model: a\n---\nmodel: b\n", r"line 2, column 1: expected a single document in the stream but found another"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("model: gpt2\nlora: &all {rank: *all}\n", "not YAML: line 2"),
        ("model: gpt2\nmatrix: {seq: &all [*all]}\n", "not YAML: line 2"),
    ],
)
def test_bad_files_are_named(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=named):
        read_scenarios(file)


def test_missing_and_broken_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_scenarios(tmp_path / "absent.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no config\.json"):
        scenario_from_mapping({"model": str(tmp_path / "empty")})
    for content, named in (("{", "not JSON"), ("[]", "list")):
        (tmp_path / "empty/config.json").write_text(content)
        with pytest.raises(UsageError, match=named):
            scenario_from_mapping({"model": str(tmp_path / "empty")})


def test_the_schema_lists_every_key_of_a_printed_scenario() -> None:
    schema = json_schema({})
    keys = schema["$defs"]["ScenarioKeys"]["properties"]
    assert set(one(gpu="rtx3090").to_mapping()) <= set(keys)
    assert keys["batch"] == {"type": "integer", "minimum": 1, "maximum": 2**24, "default": 1}


def test_the_schema_lists_the_words_of_closed_sets_and_proposes_cards() -> None:
    definitions = json_schema({"lora.rank": "rank of the adapters"})["$defs"]
    keys = definitions["ScenarioKeys"]["properties"]
    assert keys["optimizer"]["enum"] == list(OPTIMIZERS)
    assert keys["attention"]["enum"] == list(ATTENTION)
    assert keys["stack"]["anyOf"][0] == {"type": "string", "enum": list(STACKS)}
    assert "rtx4090" in keys["gpu"]["anyOf"][0]["enum"]
    assert keys["gpu"]["anyOf"][1] == {"type": "string"}  # `4090` is a card too
    assert definitions["QuantKeys"]["properties"]["block_size"]["enum"] == list(BLOCK_SIZES)
    assert definitions["LoraKeys"]["properties"]["rank"]["description"] == "rank of the adapters"


def test_a_merge_goes_into_16_bits_unless_said_otherwise() -> None:
    plain = one(method="merge")
    assert plain.quant.type.value == "none"
    assert plain.merge.max_shard_size == "50GB"
    assert one(method="merge", merge={"dequantize": True}).quant.type.value == "nf4"
    assert one(method="merge", quant={"type": "nf4"}).quant.double is True


def test_what_a_scenario_does_not_do_is_not_printed() -> None:
    assert not {"merge", "eval", "gpu", "padding"} & set(one().to_mapping())
    merged, evaluated, padded = one(method="merge"), one(eval={"batch": 3}), one(padding=True)
    for scenario in (merged, evaluated, padded):
        assert scenario_from_mapping(scenario.to_mapping()).to_mapping() == scenario.to_mapping()
    assert evaluated.to_mapping()["eval"] == {"batch": 3, "accumulate": 0}
    assert padded.to_mapping()["padding"] is True


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"merge": {"safe": True}}, "merge with method qlora"),
        ({"method": "merge", "merge": {"dequantize": True}, "quant": {"type": "none"}}, "nothing to dequantise"),
        ({"method": "merge", "merge": {"max_shard_size": "lots"}}, "merge.max_shard_size"),
        ({"method": "merge", "merge": {"max_shard_size": "2GiB"}}, "merge.max_shard_size"),  # save_pretrained refuses
        ({"method": "merge", "eval": {"batch": 2}}, "eval with method merge"),
        ({"eval": {"batch": 0}}, "eval.batch"),
        ({"eval": {"accumulate": -1}}, "eval.accumulate"),
        ({"eval": {"size": 2}}, "unknown key 'eval.size'"),
    ],
)
def test_merging_and_evaluating_wrongly_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        one(**keys)
    assert caught.value.hint


def test_plain_sdpa_means_eager_where_a_family_has_no_other() -> None:
    assert Scenario.load("gpt-oss-20b").attention == "eager"
    with pytest.raises(UsageError, match="no attention 'sdpa:math'"):
        Scenario.load("gpt-oss-20b", attention="sdpa:math")
