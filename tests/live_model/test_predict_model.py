"""A model object predicted: its scenario, and its static bytes against the sums over the object's own tensors."""

import os
import subprocess
import sys
from functools import wraps
from pathlib import Path
from textwrap import dedent
from types import MethodType
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from tiny_models import LLAMA, MIXTRAL
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, TrainingArguments

import vramplan
from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.live_model.adapters import config_warnings
from vramplan.live_model.describe import describe
from vramplan.record import Prediction
from vramplan.scenario import ALL_LINEAR, Checkpointing, Method, Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.stacks import LayerKernel, LossKernel, Upcast
from vramplan.torch_release import release
from vramplan.training.build import build_model, skeleton
from vramplan.training.meter import NoMeter
from vramplan.training.prepare import prepare

CPU = torch.device("cpu")
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 256}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
TIED = LLAMA | {"tie_word_embeddings": True}
BASE: dict[str, Any] = {"model": LLAMA, "load": "random", "batch": 2, "seq": 32, "lora": {"rank": 4}}

RECIPES: dict[str, dict[str, Any]] = {
    "nf4": {},
    "nf4 without double quantisation": {"quant": {"type": "nf4", "double": False}},
    "fp4 in another storage": {"quant": {"type": "fp4", "storage": "bfloat16"}},
    "int8": {"quant": {"type": "int8"}},
    "blocks of 128": {"quant": {"type": "nf4", "block_size": 128}},
    "two targets": {"lora": {"rank": 8, "targets": ["q_proj", "v_proj"], "dropout": 0.1}},
    "16-bit adapters": {"lora": {"rank": 4, "dtype": "bfloat16"}},
    "norms upcast": {"stack": {"upcast": "norms"}},
    "nothing upcast": {"stack": {"upcast": "none"}},
    "float16": {"compute_dtype": "float16"},
    "tied": {"model": TIED},
    "lora": {"method": "lora"},
    "full": {"method": "full"},
    "full in fp32": {"method": "full", "dtype": "float32"},
    "conv1d": {"model": GPT2, "method": "lora", "lora": {"rank": 4, "targets": ["c_attn"]}},
    "quantised conv1d": {"model": GPT2},
    "experts": {"model": MIXTRAL},
}


def made(**keys: Any) -> tuple[Scenario, Any]:
    """The scenario, and its model as our own training code builds and prepares it with the real libraries."""
    scenario = scenario_from_mapping({**BASE, **keys})
    return scenario, prepare(build_model(scenario, CPU, NoMeter()), scenario, NoMeter())


def arguments(tmp_path: Path, **keys: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **{"bf16": True, **keys})


def predicted(model: Any, tmp_path: Path, **keys: Any) -> Prediction:
    return vramplan.predict_model(model, arguments(tmp_path, **keys), batch=2, seq=32, device="cpu")


def own(prediction: Prediction) -> list[str]:
    """Warnings about the model, without those of the scenario's own prediction."""
    scenario = prediction.scenario
    return [text for text in prediction.warnings if text not in vramplan.predict(scenario, device="cpu").warnings]


@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_static_bytes_are_the_sums_over_the_parameters(keys: dict[str, Any], tmp_path: Path) -> None:
    scenario, model = made(**keys)
    prediction = predicted(model, tmp_path)
    assert own(prediction) == []
    sums = {Component.ADAPTERS: 0, Component.WEIGHTS: 0}
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        if "lora_" in name:
            sums[Component.ADAPTERS] += size
        else:
            sums[Component.WEIGHTS] += size
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    held = prediction.ledger.bytes
    assert held(Phase.FORWARD, Component.ADAPTERS) == sums[Component.ADAPTERS]
    base = held(Phase.FORWARD, Component.WEIGHTS) + held(Phase.FORWARD, Component.UNQUANTIZED)
    assert base - buffers == sums[Component.WEIGHTS] - biases_cast(model, scenario)
    found = prediction.scenario
    assert (found.method, found.quant, found.dtype) == (scenario.method, scenario.quant, scenario.dtype)
    assert found.stack.upcast is scenario.stack.upcast
    if scenario.method.adapts:
        assert (found.lora.rank, found.lora.dropout, found.lora.dtype) == (
            scenario.lora.rank,
            scenario.lora.dropout,
            scenario.lora.dtype,
        )


def biases_cast(model: nn.Module, scenario: Scenario) -> int:
    """bitsandbytes casts a 4-bit layer's bias to the compute dtype in the first forward: 4 bytes become 2."""
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit) and m.bias is not None]
    return sum(m.bias.numel() * (m.bias.element_size() - scenario.compute_dtype.bytes) for m in layers)


def test_the_scenario_is_the_one_that_was_built(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"lora": {"rank": 4}, "optimizer": "paged_adamw_8bit", "grad_accum": 4, "name": "tiny"}
    scenario, model = made(**keys, torch=release(torch.__version__))  # that of this process
    args = arguments(tmp_path, optim="paged_adamw_8bit", gradient_accumulation_steps=4, gradient_checkpointing=True)
    found = describe(model, args, batch=2, seq=32).scenario
    # the model's configuration is longer than the one it was made of, and it is read as a checkpoint's
    assert {**found.to_mapping(), "model": 0, "load": 0, "name": 0} == {
        **scenario.to_mapping(),
        "model": 0,
        "load": 0,
        "name": 0,
    }
    assert vramplan.predict(found, device="cpu").ledger.steady == vramplan.predict(scenario, device="cpu").ledger.steady


@pytest.fixture(scope="module")
def model() -> Any:
    return made(method="lora", checkpointing=False)[1]


def test_arguments_are_read(model: Any, tmp_path: Path) -> None:
    def of(**keys: Any) -> Scenario:
        return describe(model, arguments(tmp_path, **keys), seq=32).scenario

    assert of(per_device_train_batch_size=3).batch == 3
    assert of(optim="sgd", max_grad_norm=0.0).stack.clip is False
    assert of(bf16=False).stack.autocast is False
    assert of().stack.autocast == "bfloat16"
    assert of(use_liger_kernel=True).stack.loss is LossKernel.LIGER
    assert of(use_liger_kernel=True).stack.kernels == tuple(LayerKernel)
    some = of(use_liger_kernel=True, liger_kernel_config={"rope": False, "fused_linear_cross_entropy": False}).stack
    assert (some.loss, some.kernels) == (LossKernel.TORCH, (LayerKernel.RMS_NORM, LayerKernel.MLP))
    assert of().stack.kernels == ()
    assert of().checkpointing is Checkpointing.OFF
    assert of(gradient_checkpointing=True).checkpointing is Checkpointing.NON_REENTRANT
    reentrant = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    assert of(**reentrant).checkpointing is Checkpointing.REENTRANT


@pytest.mark.parametrize("kind", ["true", "reentrant"])
def test_checkpointing_of_the_model_itself_is_seen(kind: str, tmp_path: Path) -> None:
    _, model = made(method="lora", checkpointing={"true": True}.get(kind, kind))
    assert describe(model, arguments(tmp_path), seq=32).scenario.checkpointing.value == kind


def test_a_longest_sample_must_be_known(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="how long a sample is"):
        describe(model, arguments(tmp_path))
    args = arguments(tmp_path)
    args.max_length = 48  # as TRL's SFTConfig, a subclass, has it
    assert describe(model, args).scenario.seq == 48


def test_a_card_gives_a_verdict(model: Any, tmp_path: Path) -> None:
    prediction = vramplan.predict_model(model, arguments(tmp_path), seq=32, gpu="t4")
    assert prediction.verdict is not None
    assert prediction.verdict.word == "fits"
    assert prediction.scenario.gpu == "t4"


def test_a_model_on_the_meta_device_is_enough(tmp_path: Path) -> None:
    scenario = scenario_from_mapping({**BASE, "seq": 32})
    config = LoraConfig(r=4, target_modules="all-linear")
    prediction = vramplan.predict_model(
        skeleton(scenario), arguments(tmp_path), 2, 32, peft_config=config, device="cpu"
    )
    assert prediction.scenario.method is Method.QLORA
    assert prediction.scenario.stack.upcast is Upcast.NONE  # nobody has prepared it
    plain = skeleton(scenario_from_mapping({**BASE, "method": "full"}))
    full = vramplan.predict_model(plain, arguments(tmp_path), 2, 32, device="cpu")
    held = full.ledger.bytes(Phase.FORWARD, Component.WEIGHTS) + full.ledger.bytes(Phase.FORWARD, Component.UNQUANTIZED)
    sizes = [t.numel() * t.element_size() for t in (*plain.parameters(), *plain.buffers())]
    assert held == sum(sizes)


def test_adapters_that_a_trainer_will_attach(tmp_path: Path) -> None:
    scenario = scenario_from_mapping({**BASE, "method": "lora"})
    model = build_model(scenario, CPU, NoMeter())
    config = LoraConfig(r=8, lora_dropout=0.05, target_modules=["q_proj"])
    found = describe(model, arguments(tmp_path), seq=32, peft_config=config).scenario
    assert (found.method, found.lora.rank, found.lora.targets, found.lora.dropout) == (
        Method.LORA,
        8,
        ("q_proj",),
        0.05,
    )
    with pytest.raises(UsageError, match="says nothing before"):
        describe(model, arguments(tmp_path), seq=32, peft_config=LoraConfig(target_modules=".*_proj"))


def wrapped(config: Any, **keys: Any) -> Any:
    scenario = scenario_from_mapping({**BASE, "method": "lora", **keys})
    return get_peft_model(build_model(scenario, CPU, NoMeter()), config)


def test_targets_are_those_that_peft_resolved(tmp_path: Path) -> None:
    prediction = predicted(wrapped(LoraConfig(r=4, target_modules=r".*\.(q|k)_proj")), tmp_path)
    assert prediction.scenario.lora.targets == ("k_proj", "q_proj")
    assert predicted(wrapped(LoraConfig(target_modules="all-linear")), tmp_path).scenario.lora.targets == (ALL_LINEAR,)


def test_modules_that_are_trained_whole_are_read_off_the_model(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head", "norm"])
    prediction = predicted(wrapped(config), tmp_path)
    assert (prediction.scenario.lora.modules_to_save, prediction.scenario.lora.modules_dtype) == (
        ("lm_head", "norm"),
        None,
    )
    assert own(prediction) == []
    cast = wrapped(config)
    for path, parameter in cast.named_parameters():
        if ".modules_to_save." in path:
            parameter.data = parameter.data.float()
    assert predicted(cast, tmp_path).scenario.lora.modules_dtype == "float32"


def test_dora_is_read_off_the_model(tmp_path: Path) -> None:
    prediction = predicted(wrapped(LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)), tmp_path)
    assert prediction.scenario.lora.dora
    assert own(prediction) == []


def test_what_a_scenario_cannot_say_is_a_warning(tmp_path: Path) -> None:
    first_layer = wrapped(LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[0]))
    texts = own(predicted(first_layer, tmp_path))
    # rank 4 on a 64 x 64 projection: 4 x (64 + 64) elements in one layer instead of two
    assert any("512 parameters, and the prediction 1,024" in text for text in texts)
    assert any("layers_to_transform" in text for text in texts)
    several = wrapped(LoraConfig(r=4, target_modules=["q_proj"]))
    several.add_adapter("second", LoraConfig(r=16, target_modules=["q_proj"]))
    prediction = predicted(several, tmp_path)
    assert prediction.scenario.lora.rank == 4
    assert any("2 adapters" in text for text in own(prediction))


def test_custom_modules_are_noticed(tmp_path: Path) -> None:
    model = made(method="full")[1]
    model.extra = nn.Linear(64, 256)
    assert any(text.startswith("weights: the model's own tensors") for text in own(predicted(model, tmp_path)))


def test_frozen_parameters_and_unknown_attention_are_told(tmp_path: Path) -> None:
    model = made(method="full")[1]
    model.get_input_embeddings().weight.requires_grad_(False)
    model.config._attn_implementation = "flex_attention"
    texts = own(predicted(model, tmp_path))
    assert any("16,384 parameters are frozen" in text for text in texts)  # 256 x 64
    assert any("attention 'flex_attention' is not modelled: predicted as sdpa" in text for text in texts)


def test_options_that_are_not_modelled_are_told(model: Any, tmp_path: Path) -> None:
    args = arguments(tmp_path, neftune_noise_alpha=5.0, torch_compile=False, auto_find_batch_size=True)
    told = [text.split(" ")[0] for text in describe(model, args, seq=32).warnings if "is not modelled: it " in text]
    assert told == ["training_args.neftune_noise_alpha=5.0", "training_args.auto_find_batch_size=True"]
    assert not any("is not modelled" in text for text in describe(model, arguments(tmp_path), seq=32).warnings)


def test_options_of_the_adapters_that_are_not_modelled_are_told() -> None:
    keys: dict[str, Any] = {"rank_pattern": {"q_proj": 8}, "alora_invocation_tokens": [1, 2]}
    config = LoraConfig(task_type="CAUSAL_LM", **keys)
    (told,) = config_warnings(config)  # the rank is counted
    assert told.startswith(
        "LoraConfig.alora_invocation_tokens=[1, 2] is not modelled: it applies the adapters to a part"
    )
    assert not [*config_warnings(LoraConfig())]
    assert len([*config_warnings(LoraConfig(layers_to_transform=0))]) == 1


def test_evaluation_inside_training_is_read(model: Any, tmp_path: Path) -> None:
    """Its batch, 8 by default, may hold more than a training step; what arguments cannot tell is said."""
    on: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 10}

    def of(**keys: Any) -> tuple[Any, list[str]]:
        found = describe(model, arguments(tmp_path, **keys), seq=32)
        return found.scenario.evaluation, [text for text in found.warnings if "compute_metrics" in text]

    assert of() == (None, [])
    losses, told = of(**on)
    assert (losses.batch, losses.accumulate, len(told)) == (8, 0, 1)
    gathered, told = of(**on, per_device_eval_batch_size=3, eval_accumulation_steps=5)
    assert (gathered.batch, gathered.accumulate, told) == (3, 5, [])
    losses, told = of(**on, eval_accumulation_steps=5, prediction_loss_only=True)
    assert (losses.accumulate, told) == (0, [])


def test_smoothed_labels_and_packing_are_told_in_the_importers_words(model: Any, tmp_path: Path) -> None:
    def told(args: Any) -> tuple[str, ...]:
        return describe(model, args, seq=32).warnings

    smoothed = "training_args.label_smoothing_factor=0.1 is not modelled: it replaces the loss"
    assert any(text.startswith(smoothed) for text in told(arguments(tmp_path, label_smoothing_factor=0.1)))
    args = arguments(tmp_path)
    args.packing = True  # as TRL's SFTConfig has it
    assert any(text.startswith("packing: packed samples are kept apart by a mask") for text in told(args))
    args.packing = False
    assert not any("pack" in text for text in told(args))


def test_a_fused_head_that_trl_put_into_the_model_is_seen(tmp_path: Path) -> None:
    """trl 1.16's `add_fused_lm_head` binds such a function to the base model."""
    model = made(method="lora")[1]
    base = model.get_base_model()

    @wraps(type(base).forward)
    def fused(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        return type(base).forward(self, *args, **kwargs)

    base.forward = MethodType(fused, base)
    described = describe(model, arguments(tmp_path, use_liger_kernel=True), seq=32)
    assert described.scenario.stack.base == "trl"
    assert described.scenario.stack.loss is LossKernel.TILED
    assert described.scenario.stack.kernels == tuple(LayerKernel)


def test_arguments_of_preference_training_mean_pairs(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": [], "per_device_train_batch_size": 3}
    args = trl.DPOConfig(max_length=48, **settings)
    model = build_model(scenario_from_mapping(BASE), CPU, NoMeter())
    planned = describe(model, args, peft_config=LoraConfig(r=4, target_modules=["q_proj"]))
    assert planned.scenario.stack.base == "trl-dpo"
    assert (planned.scenario.batch, planned.scenario.sequences, planned.scenario.seq) == (3, 6, 48)
    assert planned.warnings == ()
    # adapters that are there already get a copy: 2 layers x (4 x 64 + 64 x 4) numbers of 4 bytes = 4,096
    attached = made(lora={"rank": 4, "targets": ["q_proj"]})[1]
    (copied,) = describe(attached, args).warnings
    assert "a copy of these adapters as its reference, 4.00 KiB" in copied


def test_models_that_unsloth_has_rewritten_are_told(tmp_path: Path) -> None:
    """Unsloth replaces `forward` of transformers' classes by functions of its own modules."""

    class Rewritten(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    Rewritten.forward.__module__ = "unsloth.models.llama"
    model = made(method="full")[1]
    model.__class__ = Rewritten
    (text,) = own(predicted(model, tmp_path))
    assert text.startswith("the model is Unsloth's")


def test_loops_of_trl_that_are_not_modelled_are_refused(model: Any, tmp_path: Path) -> None:
    """Also where their arguments are made of those of a trainer that is: GKDConfig is an SFTConfig."""
    trl = pytest.importorskip("trl")
    gkd = pytest.importorskip("trl.experimental.gkd")
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": []}
    for args in (trl.RewardConfig(**settings), gkd.GKDConfig(**settings)):
        with pytest.raises(UsageError, match=f"TRL's {type(args).__name__}, whose training is not modelled"):
            vramplan.predict_model(model, args, seq=32)

    class OwnConfig(trl.SFTConfig):
        """What people derive from a trainer's arguments is read as those."""

    assert describe(model, OwnConfig(max_length=32, **settings)).scenario.seq == 32


def test_models_without_a_head_over_a_vocabulary_are_refused(tmp_path: Path) -> None:
    classifier = LlamaForSequenceClassification(LlamaConfig(**{k: v for k, v in LLAMA.items() if k != "model_type"}))
    with pytest.raises(UsageError, match="a LlamaForSequenceClassification has no head over a vocabulary"):
        predicted(classifier, tmp_path)


def test_what_cannot_be_predicted_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="peft method IA3"):
        predicted(wrapped(IA3Config(target_modules=["q_proj"], feedforward_modules=[])), tmp_path)
    with pytest.raises(UsageError, match="unknown optimizer 'lomo'"):
        predicted(model, tmp_path, optim="lomo")
    quantised = build_model(scenario_from_mapping(BASE), CPU, NoMeter())
    with pytest.raises(UsageError, match="quantised and has no adapters"):
        predicted(quantised, tmp_path)
    with pytest.raises(UsageError, match="no transformers configuration"):
        predicted(nn.Linear(2, 2), tmp_path)
    with pytest.raises(UsageError, match="training_args is a NoneType"):
        vramplan.predict_model(model, None, seq=32)


def test_importing_the_package_stays_light() -> None:
    program = "import sys, vramplan; vramplan.predict_model; assert not {'torch', 'transformers'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(vramplan.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_docstring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, model = made()
    example = dedent((vramplan.predict_model.__doc__ or "").rpartition("\n\n")[2])
    found = {"model": model, "TrainingArguments": TrainingArguments, "vramplan": vramplan}
    exec(example, found)
    assert capsys.readouterr().out.split()[0] == str(found["prediction"].ledger.peak)
    assert found["prediction"].verdict.word == "fits"
