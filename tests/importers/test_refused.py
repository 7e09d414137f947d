"""What cannot be read, or is no supervised training on one GPU, is refused with the key, its value and a way on."""

import json
from pathlib import Path

import pytest

from vramplan.catalog.models import catalog_config
from vramplan.errors import UsageError
from vramplan.targets import resolve

_TRL = "model_name_or_path: llama-2-7b\ndataset_name: d\n"
_AXOLOTL = "base_model: llama-2-7b\n"
_FACTORY = "model_name_or_path: llama-2-7b\ntemplate: llama2\nbf16: true\n"
_CHAT = "model_name_or_path: llama-2-7b\nadapter_name_or_path: a\ntemplate: llama2\nfinetuning_type: lora\n"
_TUNE = """
model: {_component_: torchtune.models.llama2.lora_llama2_7b, lora_attn_modules: [q_proj]}
optimizer: {_component_: torch.optim.AdamW}
batch_size: 1
"""
_LORA = {"peft_type": "LORA", "base_model_name_or_path": "llama-2-7b", "target_modules": ["q_proj"]}


def refused(tmp_path: Path, text: str, name: str = "run.yaml") -> UsageError:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        resolve(str(file))
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_TRL + "deepspeed: zero3.json", "deepspeed: zero3.json asks for several GPUs"),
        (_TRL + "fsdp: true", "fsdp: true asks for several GPUs"),
        (_TRL + "use_peft: true\nlora_task_type: SEQ_CLS", "lora_task_type: SEQ_CLS has another head"),
        (_TRL + "num_generations: 8", "num_generations: 8 is reinforcement learning"),
        (_TRL + "desirable_weight: 1.0", "desirable_weight: 1.0 is KTO"),
        (_TRL + "beta: 0.1\nloss_type: nll", "loss_type: nll beside beta is no loss of DPOTrainer"),
        (_TRL + "beta: 0.1\npacking: true", "packing: true is of SFTTrainer, and beta of DPOTrainer"),
        (_TRL + "sync_ref_model: true", "sync_ref_model: true keeps a second model"),
        (_TRL + "use_vllm: true", "use_vllm: true is reinforcement learning"),
        (_TRL + "load_in_4bit: true", "load_in_4bit: true without use_peft"),
        (_TRL + "use_peft: true\nload_in_4bit: true\nload_in_8bit: true", "load_in_8bit: true with load_in_4bit"),
        (_TRL + "use_peft: maybe", "use_peft: maybe is neither true nor false"),
        (_TRL + "per_device_train_batch_size: 0", "per_device_train_batch_size: 0 is not a count"),
        (_TRL + f"per_device_train_batch_size: {2**24 + 1}", f"{2**24 + 1} is not a count"),
        (_TRL + "per_device_train_batch_size: [1]", "per_device_train_batch_size: [1] is not a number"),
        (_TRL + "max_length: 1e300", "max_length: 1e+300 is not a number"),
        (_TRL + "max_length: .nan", "max_length: nan is not a number"),
        (_TRL + "dtype: int3", "dtype: int3 is not an element type"),
        (_TRL + "loss_type: cross_entropy", "loss_type: cross_entropy is no loss of SFTTrainer"),
        (_TRL + "gradient_checkpointing_kwargs: 5", "gradient_checkpointing_kwargs: 5 is not understood"),
        (_TRL + "use_peft: true\nlora_target_modules: '(q_proj)+'", "(q_proj)+ is too involved a pattern"),
        (_TRL + "use_peft: true\nlora_target_modules: '[a'", "is no regular expression"),
        (_TRL + "use_peft: true\nlora_target_modules: q_proj", "matches none"),
        (
            _TRL + "use_peft: true\nlora_target_modules: '.*layers.0.*q_proj'",
            "leaves out modules such as model.layers.",
        ),
        (_TRL + "use_peft: true\nlora_target_modules: [5]", "lora_target_modules: [5] is not a list of names"),
        ("use_peft: true", "model_name_or_path: null names no model"),
        ("use_peft: true\nmodel_name_or_path: no-such-model", "unknown model 'no-such-model'"),
        (_AXOLOTL + "tensor_parallel_size: 2", "tensor_parallel_size: 2 asks for several GPUs"),
        (_AXOLOTL + "fsdp: [full_shard]", "fsdp: [full_shard] asks for several GPUs"),
        (_AXOLOTL + "model_quantization_config: FineGrainedFP8Config", "FineGrainedFP8Config is training on a model"),
        (_AXOLOTL + "model_quantization_config: Mxfp4Config", "Mxfp4Config is training on a model quantised by other"),
        (_AXOLOTL + "unsloth_lora_mlp: true", "unsloth_lora_mlp: true is refused by axolotl 0.19.0"),
        (_AXOLOTL + "rl: dpo", "rl: dpo is preference training"),
        (_AXOLOTL + "reward_model: true", "reward_model: true is reward modelling"),
        (_AXOLOTL + "adapter: qlora", "adapter: qlora without load_in_4bit"),
        (_AXOLOTL + "adapter: llama-adapter", "adapter: llama-adapter is not modelled"),
        (_AXOLOTL + "load_in_8bit: true", "load_in_8bit: true without adapter"),
        (_AXOLOTL + "adapter: lora", "no 'lora_r', which axolotl 0.19.0 requires"),
        (_FACTORY + "stage: dpo", "stage: dpo is another kind of training"),
        (_FACTORY + "stage: kto", "stage: kto is another kind of training"),
        (_FACTORY + "stage: rm", "stage: rm is another kind of training"),
        (_FACTORY + "finetuning_type: freeze", "finetuning_type: freeze has no scenario"),
        (_FACTORY + "use_galore: true", "use_galore: true is full-parameter training with GaLore"),
        (_FACTORY + "quantization_bit: 3", "quantization_bit: 3 is not a width"),
        (_FACTORY + "quantization_bit: 4\nquantization_method: hqq", "quantization_method: hqq is not modelled"),
        (_FACTORY + "do_train: false", "do_train: false trains nothing"),
        (_FACTORY + "do_eval: true", "do_eval: true without do_train: true trains nothing"),
        (_FACTORY + "stage: sft\ndo_predict: true", "do_predict: true without do_train: true trains nothing"),
        (_FACTORY + "predict_with_generate: true", "predict_with_generate: true without do_train: true trains"),
        (_FACTORY + "task: mmlu_test\nn_shot: 5", "task: mmlu_test is an evaluation"),
        (_CHAT, "template: llama2 and no key of a training: the file is one of a chat"),
        (_CHAT + "infer_backend: vllm\nvllm_enforce_eager: true", "template: llama2 and no key of a training"),
        (_FACTORY + "quantization_bit: 4\npissa_init: true", "pissa_init: true with quantization_bit, which LLaMA-"),
        (_FACTORY + "ray_num_workers: 4", "ray_num_workers: 4 asks for several GPUs"),
        (_FACTORY + "flash_attn: magic", "flash_attn: magic is not an attention"),
        (_FACTORY + "flash_attn: [fa2]", "flash_attn: [fa2] is not an attention"),
        (_FACTORY + "flash_attn: fa3", "flash_attn: fa3 is not an attention"),  # NotImplementedError but for gpt_oss
        (_TUNE + "dtype: fp16", "dtype: fp16 is refused by torchtune"),
        (_TUNE + "loss: {_component_: torchtune.rlhf.loss.DPOLoss}", "is a loss of preference training"),
        (_TUNE + "tensor_parallel_dim: 2", "tensor_parallel_dim: 2 asks for several GPUs"),
        (_TUNE + "quantizer: {_component_: x}", "quantizer._component_: x is quantisation-aware training"),
        ("policy_model: {_component_: x}", "policy_model._component_: x is reinforcement learning (PPO)"),
        (_TUNE + "seed: ${nowhere}", "'${nowhere}' names no key"),
        (_TUNE + "a: ${b}\nb: ${a}", "refers to itself"),
        (_TUNE + "a: ${oc.env:HOME}", "is more than a reference to a key"),
        (_TUNE.replace("[q_proj]", "[w1]"), "has an unknown module 'w1'"),
        (_TUNE.replace("lora_llama2_7b", "lora_llama9_7b"), "no published model is known for the builder 'llama9_7b'"),
        (_TUNE.replace("batch_size: 1", ""), "no 'batch_size', which torchtune 0.6.1 requires"),
        ("model: {_component_: os.system}", "is no language model that is read"),
    ],
)
def test_a_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text).message


@pytest.mark.parametrize(
    ("text", "key"),
    [(_FACTORY, "use_galore"), (_FACTORY, "use_badam"), (_AXOLOTL, "gptq"), (_AXOLOTL, "qat")],
)
def test_a_feature_that_no_scenario_describes_can_be_left_out(tmp_path: Path, text: str, key: str) -> None:
    error = refused(tmp_path, f"{text}{key}: true\n")
    assert error.hint == f"--set {key}=null reads the file without it, as a plain training"
    target = resolve(str(tmp_path / "run.yaml"), {key: None})
    assert target.scenarios[0].model.name == "llama-2-7b"


@pytest.mark.parametrize("text", [_TRL, _FACTORY])
def test_a_word_that_yaml_reads_as_a_boolean_is_to_be_quoted(tmp_path: Path, text: str) -> None:
    """transformers 5.17.0 IntervalStrategy(False) is a ValueError as well."""
    error = refused(tmp_path, f"{text}eval_strategy: no\n")
    assert "eval_strategy: false is not a word" in error.message
    assert error.hint == "YAML reads a bare no as false and a bare yes as true: quote it, such as eval_strategy: 'no'"


def test_what_asks_for_several_gpus_is_read_for_one_on_request(tmp_path: Path) -> None:
    text = _AXOLOTL + "fsdp: [full_shard]\nfsdp_config: {fsdp_offload_params: true}\ndeepspeed:\n"
    error = refused(tmp_path, text)
    assert error.hint.startswith("--set fsdp=null --set fsdp_config=null reads it for one GPU: the whole run")
    target = resolve(str(tmp_path / "run.yaml"), {"fsdp": None, "fsdp_config": None})
    assert target.origin is not None
    assert [row.key for row in target.origin.ignored if row.note == "left out, as typed"] == ["fsdp", "fsdp_config"]
    sharded = refused(tmp_path, _TUNE + "fsdp: {cpu_offload: true}\n")
    assert sharded.hint.startswith("--set fsdp=null reads it for one GPU")
    assert resolve(str(tmp_path / "run.yaml"), {"fsdp": None}).scenarios[0].batch == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type: IA3 is not modelled"),
        ({"peft_type": None}, "not a configuration that can be recognised"),
        ({"r": "many"}, "r: many is not a number"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path: null names no model"),
        ({"target_modules": {"q": 1}}, "is not a list of names"),
        ({"target_modules": [["q_proj"]]}, "is not a list of names"),
        ({"target_modules": ".*" * 40}, "is too involved a pattern"),
    ],
)
def test_an_adapter_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    content = {key: value for key, value in {**_LORA, **change}.items() if key != "peft_type" or value}
    assert message in refused(tmp_path, json.dumps(content), "adapter_config.json").message


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 5000, '{"a": 1', "\0"])
def test_a_broken_adapter_file_is_refused(tmp_path: Path, text: str) -> None:
    assert "adapter_config.json" in refused(tmp_path, text, "adapter_config.json").message


def test_aliases_of_aliases_end(tmp_path: Path) -> None:
    lists = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert "more than 20,000 values" in refused(tmp_path, f"{_AXOLOTL}a: &a [1, 1]\n{lists}").message
    merges = "".join(
        f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}], y: 1}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "names too many keys" in refused(tmp_path, f"{_AXOLOTL}a: &a {{x: 1, z: 2}}\n{merges}").message
    assert "recursive node" in refused(tmp_path, f"{_AXOLOTL}a: &a [*a]\n").message
    assert "more than 1 MiB" in refused(tmp_path, _AXOLOTL + "# " + "x" * 2**20).message


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    text = f"{_AXOLOTL}x: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n"
    assert "is not YAML" in refused(tmp_path, text).message
    assert not (tmp_path / "ran").exists()


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"x-base: &b {{adapter: qlora, load_in_4bit: true, lora_r: 4}}\n<<: *b\n{_AXOLOTL}lora_r: 8\n")
    scenario = resolve(str(file), {"lora.targets": "all-linear"}).scenarios[0]
    assert (scenario.method, scenario.lora.rank) == ("qlora", 8)


@pytest.mark.parametrize("text", [_TRL + "use_peft: true", _AXOLOTL + "adapter: qlora", _FACTORY])
@pytest.mark.parametrize(("method", "words"), [("awq", "quantised by awq, which no scenario"), ("gptq", "by gptq")])
def test_weights_that_no_scenario_describes(tmp_path: Path, text: str, method: str, words: str) -> None:
    """These libraries train adapters on them as they are."""
    config = {**catalog_config("llama-2-7b"), "quantization_config": {"quant_method": method, "bits": 4}}
    (tmp_path / "quantised").mkdir()
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    error = refused(tmp_path, text.replace("llama-2-7b", "quantised"))
    assert words in error.message
    assert "--set model=" in error.hint


def test_an_adapter_for_another_head(tmp_path: Path) -> None:
    error = refused(tmp_path, json.dumps({**_LORA, "task_type": "SEQ_CLS"}), "adapter_config.json")
    assert "task_type: SEQ_CLS has another head" in error.message
