"""TRL: the YAML of `trl sft --config file.yaml` or `trl dpo`, keys of SFTConfig or DPOConfig, ModelConfig and
ScriptArguments (trl 1.16.0)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vramplan.checkpoint_quant import stored_quant
from vramplan.importers import hf
from vramplan.importers.imported import Imported
from vramplan.importers.keys import BATCH, DROPOUT, GRAD_ACCUM, RANK, SEQ, TRAINING_ARGUMENTS
from vramplan.importers.liger import ignore_trainers_config, read_trainers_switch
from vramplan.importers.optimizers import read_optimizer
from vramplan.importers.source import Source
from vramplan.importers.targets import architecture, check_task, read_dora, read_modules, read_saved_modules
from vramplan.importers.trl_trainer import SFT, read_trainer
from vramplan.importers.values import as_flag, is_null
from vramplan.importers.vocabulary.trl import TRL
from vramplan.scenario import DType, ModelRef

_MODEL = "trl 1.16.0 trainer/model_config.py"
_BASE = "trl 1.16.0 trainer/base_config.py"


def read_trl(content: Mapping[str, Any], *, where: str, base: Path, model: object = None) -> Imported:
    """The scenario of a TRL configuration."""
    source = Source(_flattened(content), TRL, where)
    source.guard()
    check_task(source, "lora_task_type")
    ref = hf.read_model(source, "model_name_or_path", base, model)
    four, eight = source.flag("load_in_4bit"), source.flag("load_in_8bit")
    adapts = source.flag("use_peft")
    if four and eight:
        source.refuse("load_in_8bit", "with load_in_4bit", hint="keep one of the two")
    if (four or eight) and not adapts:
        key = "load_in_4bit" if four else "load_in_8bit"
        source.refuse(
            key, "without use_peft: transformers trains no quantised model as a whole", hint="add use_peft: true"
        )
    weights = _weights(source, ref)
    _method(source, bool(adapts), bool(four), bool(eight), weights, ref)
    if adapts:
        _adapters(source, ref, quantized=bool(four or eight or stored_quant(ref.config)))
    else:
        _without_adapters(source)
    source.plain(BATCH)
    source.plain(GRAD_ACCUM)
    _length(source)
    whole = 0 if adapts else weights.bytes * architecture(source, ref).numel
    read_optimizer(source, "optim", TRAINING_ARGUMENTS, whole=whole)
    _attention(source)
    hf.read_checkpointing(source, source.flag("gradient_checkpointing"), True, _BASE, reentrant=False)
    _stack(source, ref)
    hf.read_trainers_evaluation(source)
    return source.finish()


def _flattened(content: Mapping[str, Any]) -> dict[str, Any]:
    """model_init_kwargs are put over ModelConfig's own values (scripts/sft.py): the two that matter move up."""
    flat = dict(content)
    kwargs = flat.get("model_init_kwargs")
    if isinstance(kwargs, Mapping):
        for key in ("dtype", "torch_dtype", "attn_implementation"):
            if not is_null(kwargs.get(key)):
                flat["dtype" if key == "torch_dtype" else key] = kwargs[key]
        flat["model_init_kwargs"] = {
            k: v for k, v in kwargs.items() if k not in ("dtype", "torch_dtype", "attn_implementation")
        }
    return flat


def _weights(source: Source, model: ModelRef) -> DType:
    """`dtype`: ModelConfig loads in fp32 unless told otherwise. `torch_dtype` is the name of older releases."""
    key = "torch_dtype" if source.given("dtype") is None and source.given("torch_dtype") is not None else "dtype"
    if source.given(key) == "auto":
        dtype = hf.model_dtype(source, model, DType.BFLOAT16)
        source.read(key, "dtype", dtype.value, note="as config.json states it")
        return dtype
    dtype = source.dtype(key) or DType.FLOAT32
    source.take(key, "dtype", dtype.value, f"default of dtype, {_MODEL}")
    return dtype


def _method(source: Source, adapts: bool, four: bool, eight: bool, weights: DType, model: ModelRef) -> None:
    if not adapts:
        source.take("use_peft", "method", "full", f"use_peft is off unless set, {_MODEL}")
        source.assume("compute_dtype", weights.value, "full fine-tuning computes in what autocast says")
        return
    if four or eight:
        source.read(("use_peft", "load_in_4bit" if four else "load_in_8bit"), "method", "qlora")
    else:
        hf.read_adapted(source, "use_peft", model, _MODEL)
    source.assume(
        "compute_dtype", weights.value, "bnb_4bit_compute_dtype is the weights' dtype, trl 1.16.0 trainer/utils.py"
    )
    if eight:
        source.read("load_in_8bit", "quant.type", "int8")
    if four:
        kind = (source.word("bnb_4bit_quant_type") or "nf4").lower()
        if kind not in ("nf4", "fp4"):
            source.refuse("bnb_4bit_quant_type", "is no type of bitsandbytes", hint="nf4 or fp4")
        source.take("bnb_4bit_quant_type", "quant.type", kind, f"default of bnb_4bit_quant_type, {_MODEL}")
        nested = bool(source.flag("use_bnb_nested_quant"))
        source.take("use_bnb_nested_quant", "quant.double", nested, f"default of use_bnb_nested_quant, {_MODEL}")
        _storage(source)


def _storage(source: Source) -> None:
    word = source.word("bnb_4bit_quant_storage")
    if word is not None and word != "uint8":
        dtype = source.dtype("bnb_4bit_quant_storage")
        word = dtype.value if dtype else None
    source.take("bnb_4bit_quant_storage", "quant.storage", word or "uint8", "bitsandbytes' default")


def _adapters(source: Source, model: ModelRef, *, quantized: bool) -> None:
    source.plain(RANK)
    source.plain(DROPOUT)
    read_dora(source, "use_dora")
    modules = source.given("lora_target_modules")
    if isinstance(modules, list) and len(modules) == 1 and modules[0] != "all-linear":
        # ModelConfig.__post_init__ makes a string of it, and peft a pattern of the string.
        source.warn(
            f"lora_target_modules: {modules}: TRL makes a pattern of a single name, which matches whole module paths"
            " only; predicted as if it were a list"
        )
    read_modules(source, "lora_target_modules", model)
    dtype = DType.BFLOAT16 if quantized else DType.FLOAT32
    why = f"{SFT} casts the adapters of a quantised model" if quantized else "peft's autocast_adapter_dtype"
    source.assume("lora.dtype", dtype.value, why)
    read_saved_modules(source, "lora_modules_to_save", model)


def _without_adapters(source: Source) -> None:
    adapters = ("lora_r", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_dora")
    source.ignore(adapters, "no adapters without use_peft")
    source.ignore(("bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"), "nothing is quantised")


def _length(source: Source) -> None:
    """`seq`: max_length, or max_seq_length as older releases called it."""
    if source.given("max_length") is None and source.given("max_seq_length") is not None:
        source.read("max_seq_length", "seq", source.count("max_seq_length"), note="max_length in trl 1.16.0")
    elif source.written_null("max_length"):
        source.assume("seq", 2048, "max_length: null cuts nothing")
        source.warn("max_length: null: samples may be of any length; predicted with 2,048 tokens (--seq)", ours="seq")
    else:
        source.plain(SEQ)


def _attention(source: Source) -> None:
    attention = hf.read_attention(source, _MODEL)
    if source.flag("packing"):
        hf.packed(source, "packing", attention)


def _stack(source: Source, model: ModelRef) -> None:
    """TRL's trainers: no prepare_model_for_kbit_training, and the fused head that never makes all logits."""
    trainer = read_trainer(source)
    fp16 = source.flag("fp16")
    bf16 = source.flag("bf16")
    if bf16 is None and not fp16:
        source.assume("stack.autocast", "bfloat16", f"bf16 is on unless fp16 is, {_BASE}")
    else:
        dtype = hf.mixed_precision(source)
        source.read(("bf16", "fp16"), "stack.autocast", dtype.value if dtype else False)
    source.assume("stack.upcast", "none", f"{trainer} does not prepare the model for k-bit training")
    _liger(source, model)
    kwargs = source.given("gradient_checkpointing_kwargs")
    if isinstance(kwargs, Mapping) and as_flag(kwargs.get("selective")):
        source.warn("gradient_checkpointing_kwargs: selective checkpointing keeps more than predicted")
    if source.given("model_init_kwargs"):
        source.warn(f"model_init_kwargs: {source.given('model_init_kwargs')}: what they do to memory is not known")
    hf.read_clipping(source)


def _liger(source: Source, model: ModelRef) -> None:
    """Its kernels without its loss, which would replace TRL's own (trainer/sft_trainer.py)."""
    if not source.flag("use_liger_kernel"):
        ignore_trainers_config(source)
        return
    config = source.given("liger_kernel_config")
    if isinstance(config, Mapping) and as_flag(config.get("fused_linear_cross_entropy")):
        source.refuse("liger_kernel_config", "asks for Liger's loss, which TRL's trainers refuse", hint="leave it out")
    read_trainers_switch(source, model)
