"""LLaMA-Factory: the YAML of `llamafactory-cli train file.yaml` (llamafactory 0.9.5, hparams/)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vramplan.importers import hf
from vramplan.importers.imported import Imported
from vramplan.importers.keys import BATCH, DROPOUT, GRAD_ACCUM, RANK, SEQ, TRAINING_ARGUMENTS
from vramplan.importers.liger import ignore_trainers_config, read_kernels, read_loss, read_trainers_switch
from vramplan.importers.llamafactory_runs import refuse_what_does_not_train
from vramplan.importers.optimizers import read_optimizer
from vramplan.importers.source import Source
from vramplan.importers.targets import architecture, read_dora, read_names, read_saved_modules
from vramplan.importers.vocabulary.llamafactory import LIGER_FAMILIES, LLAMAFACTORY
from vramplan.predict.stops import LIGER_ON_WRAPPED_EXPERTS
from vramplan.scenario import DType, ModelRef
from vramplan.stacks import LayerKernel

_MODEL = "llamafactory 0.9.5 hparams/model_args.py"
_TUNING = "llamafactory 0.9.5 hparams/finetuning_args.py"
#: flash_attn -> attention, where no family says otherwise (model_utils/attention.py configure_attn_implementation).
_ATTENTION = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}


def read_llamafactory(content: Mapping[str, Any], *, where: str, base: Path, model: object = None) -> Imported:
    """The scenario of a LLaMA-Factory configuration."""
    source = Source(content, LLAMAFACTORY, where)
    source.guard()
    refuse_what_does_not_train(source, content)
    stage = source.word("stage") or "sft"
    if stage not in ("sft", "pt"):
        source.refuse(
            "stage", "is another kind of training", hint="supervised (sft) and continued training (pt) are read"
        )
    source.ignore("stage", "the loss is that of a language model")
    ref = hf.read_model(source, "model_name_or_path", base, model)
    tuning = source.word("finetuning_type") or "lora"
    if tuning not in ("lora", "full"):
        source.refuse("finetuning_type", "has no scenario", hint="lora and full are read")
    pure = bool(source.flag("pure_bf16"))
    mixed = hf.mixed_precision(source)
    compute = DType.BFLOAT16 if pure else mixed or hf.model_dtype(source, ref, DType.FLOAT32)
    _precision(source, ref, compute, mixed, pure=pure, full=tuning == "full")
    bits = _bits(source)
    _method(source, tuning, bits, compute, ref)
    if tuning == "lora":
        _adapters(source, ref, pure=pure)
    else:
        adapters = ("lora_rank", "lora_dropout", "lora_target", "additional_target", "use_dora")
        source.ignore(adapters, "no adapters with finetuning_type: full")
    source.plain(BATCH)
    source.plain(GRAD_ACCUM)
    source.plain(SEQ)
    whole = architecture(source, ref).numel * (compute if pure else DType.FLOAT32).bytes if tuning == "full" else 0
    read_optimizer(source, "optim", TRAINING_ARGUMENTS, whole=whole)
    _attention(source, stage, ref)
    _checkpointing(source)
    _stack(source, ref)
    hf.read_trainers_evaluation(source)
    return source.finish()


def _precision(source: Source, model: ModelRef, compute: DType, mixed: DType | None, *, pure: bool, full: bool) -> None:
    """model/loader.py loads in the checkpoint's type; model/adapter.py casts what is trained unless pure_bf16."""
    keys = ("bf16", "fp16", "pure_bf16")
    if mixed or pure:
        source.read(keys, "compute_dtype", compute.value)
    else:
        why = "neither bf16 nor fp16: the weights' own, llamafactory 0.9.5 model/patcher.py"
        source.assume("compute_dtype", compute.value, why)
    if full and not pure:
        source.assume("dtype", "float32", "trained parameters are cast to fp32, llamafactory 0.9.5 model/adapter.py")
    else:
        source.assume(
            "dtype",
            hf.model_dtype(source, model, compute).value,
            "torch_dtype=auto, llamafactory 0.9.5 model/loader.py",
        )
    autocast = mixed.value if mixed else False
    source.take(
        "bf16" if mixed is DType.BFLOAT16 else "fp16",
        "stack.autocast",
        autocast,
        f"neither bf16 nor fp16, {TRAINING_ARGUMENTS}",
    )


def _bits(source: Source) -> int | None:
    bits = source.count("quantization_bit")
    method = source.word("quantization_method") or "bnb"
    if bits is not None and method.lower() not in ("bnb", "bitsandbytes"):
        source.refuse("quantization_method", "is not modelled", hint="bnb (bitsandbytes) is")
    if bits not in (None, 4, 8):
        source.refuse("quantization_bit", "is not a width of bitsandbytes", hint="4 or 8")
    if bits is not None and source.flag("pissa_init"):  # hparams/parser.py _verify_model_args, model/adapter.py
        hint = "--set pissa_init=null reads the file without it; scripts/pissa_init.py makes such a model beforehand"
        source.refuse("pissa_init", "with quantization_bit, which LLaMA-Factory refuses", hint=hint)
    source.pass_on("pissa_init")
    return bits


def _method(source: Source, tuning: str, bits: int | None, compute: DType, model: ModelRef) -> None:
    if tuning == "full":
        if bits is not None:
            source.refuse(
                "quantization_bit", "with finetuning_type: full", hint="quantised models train adapters: lora"
            )
        source.read("finetuning_type", "method", "full")
        return
    if bits is None:
        hf.read_adapted(source, "finetuning_type", model, f"default of finetuning_type, {_TUNING}")
        source.ignore(("quantization_type", "double_quantization", "quantization_method"), "of quantization_bit")
        return
    source.read(("finetuning_type", "quantization_bit"), "method", "qlora")
    if bits == 8:
        source.read("quantization_bit", "quant.type", "int8")
        return
    kind = source.word("quantization_type") or "nf4"
    if kind not in ("nf4", "fp4"):
        source.refuse("quantization_type", "is no type of bitsandbytes", hint="nf4 or fp4")
    source.take("quantization_type", "quant.type", kind, f"default of quantization_type, {_MODEL}")
    double = source.flag("double_quantization")
    source.take("double_quantization", "quant.double", double is not False, f"default of double_quantization, {_MODEL}")
    why = "bnb_4bit_quant_storage is the compute type, llamafactory 0.9.5 model/model_utils/quantization.py"
    source.assume("quant.storage", compute.value, why)


def _adapters(source: Source, model: ModelRef, *, pure: bool) -> None:
    """model/adapter.py casts all that is trained to fp32; under pure_bf16 nothing, and peft casts the adapters."""
    source.plain(RANK)
    source.plain(DROPOUT)
    read_dora(source, "use_dora")
    read_names(source, "lora_target", model, everything="all", origin=_TUNING)  # find_all_linear_modules
    cast = "trained parameters are cast to fp32, llamafactory 0.9.5 model/adapter.py"
    source.assume("lora.dtype", "float32", "peft's autocast_adapter_dtype" if pure else cast)
    read_saved_modules(source, "additional_target", model)
    if source.given("additional_target") is not None and not pure:
        source.assume("lora.modules_dtype", "float32", cast)
    if source.given("adapter_name_or_path") is not None and not source.flag("create_new_adapter"):
        source.warn(
            "adapter_name_or_path: training goes on with an adapter whose rank and targets are in its own"
            " adapter_config.json; predicted with this file's"
        )


def _attention(source: Source, stage: str, model: ModelRef) -> None:
    name = _asked_attention(source.given("flash_attn"))
    if name not in _ATTENTION and model.config.get("model_type") != "gpt_oss":
        source.refuse("flash_attn", "is not an attention of LLaMA-Factory", hint=", ".join(_ATTENTION))
    known, warning = _chosen_attention(name, str(model.config.get("model_type")))
    source.take("flash_attn", "attention", known, f"default of flash_attn (auto), {_MODEL}, model_utils/attention.py")
    if warning:
        source.warn(warning, ours="attention")
    if source.flag("neat_packing"):
        hf.packed(source, "neat_packing", known)
    given = source.flag("packing")
    if given or (given is None and stage == "pt"):
        source.ignore("packing", "every batch is then full, which is what is predicted")
    else:
        source.ignore("packing", "predicted with samples of full length")


def _asked_attention(value: object) -> str:
    """What flash_attn asks for, which was true or false in older releases."""
    if value is None:
        return "auto"
    if value in (True, False):
        return "fa2" if value else "disabled"
    return str(value)


def _chosen_attention(name: str, family: str) -> tuple[str, str]:
    """The attention of flash_attn's `name` for a family (model_utils/attention.py), and a warning about it or none."""
    if family == "gpt_oss":
        return "flash_attention_2", (
            "flash_attn: gpt_oss gets FlashAttention-3 kernels, whatever it says; predicted as flash_attention_2"
        )
    if family == "gemma2" and name == "auto":
        return "eager", (
            "flash_attn: auto means flash_attention_2 to gemma2 where flash-attn is installed, eager where it is not;"
            " predicted as eager"
        )
    if family in ("youtu", "youtu_vl") and name in ("auto", "sdpa"):
        return "eager", ""
    return _ATTENTION[name], ""


def _checkpointing(source: Source) -> None:
    """model_utils/checkpointing.py: on unless disabled, reentrant unless told otherwise."""
    if source.flag("disable_gradient_checkpointing"):
        source.read("disable_gradient_checkpointing", "checkpointing", False)
        return
    reentrant = source.flag("use_reentrant_gc")
    value: bool | str = True if reentrant is False else "reentrant"
    source.take(
        "use_reentrant_gc",
        "checkpointing",
        value,
        f"defaults of disable_gradient_checkpointing, use_reentrant_gc, {_MODEL}",
    )


def _stack(source: Source, model: ModelRef) -> None:
    """The Trainer's loop; nothing is upcast unless upcast_layernorm (model_utils/checkpointing.py)."""
    norms = source.flag("upcast_layernorm")
    source.take(
        "upcast_layernorm", "stack.upcast", "norms" if norms else "none", f"default of upcast_layernorm, {_MODEL}"
    )
    _liger(source, model)
    hf.read_clipping(source)


def _liger(source: Source, model: ModelRef) -> None:
    """LLaMA-Factory's own switch (model_utils/liger_kernel.py): the loss and all kernels; or the Trainer's."""
    own, trainers = source.flag("enable_liger_kernel"), source.flag("use_liger_kernel")
    patched = own and _knows_liger(source, model)
    if patched or not trainers:
        ignore_trainers_config(source)
    if patched:
        read_loss(source, "enable_liger_kernel", model)
        read_kernels(source, ["enable_liger_kernel"], model, tuple(LayerKernel))
        source.deny(LIGER_ON_WRAPPED_EXPERTS)  # model/loader.py load_model patches the classes before it loads
    elif trainers:
        fused = read_trainers_switch(source, model)
        source.read("use_liger_kernel", "stack.loss", "liger" if fused else "torch")
    else:
        source.take("enable_liger_kernel", "stack.loss", "torch", f"default of enable_liger_kernel, {_MODEL}")


def _knows_liger(source: Source, model: ModelRef) -> bool:
    """Whether enable_liger_kernel does anything for the family; a warning where it does not.

    Of a model taken out of a larger one, LLaMA-Factory sees the larger one's type.
    """
    read = architecture(source, model)
    if read.family in LIGER_FAMILIES or (read.facts.derived and model.note):
        return True
    source.warn(
        f"enable_liger_kernel: LLaMA-Factory has no Liger kernels for {read.family}"
        " (model/model_utils/liger_kernel.py), which stays as it is"
    )
    return False
