"""axolotl: the YAML of `axolotl train file.yaml` (axolotl 0.19.0, utils/schemas/)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vramplan.checkpoint_quant import stored_quant
from vramplan.importers import hf
from vramplan.importers.axolotl_stack import LOADER, read_stack
from vramplan.importers.imported import Imported
from vramplan.importers.keys import BATCH, DROPOUT, GRAD_ACCUM, RANK, SEQ
from vramplan.importers.optimizers import read_optimizer
from vramplan.importers.source import Source
from vramplan.importers.targets import architecture, every_linear, read_dora, read_modules, read_saved_modules
from vramplan.importers.values import as_dtype, as_flag
from vramplan.importers.vocabulary.axolotl import AXOLOTL
from vramplan.scenario import DType, ModelRef

_SCHEMA = "axolotl 0.19.0 utils/schemas/"
#: enums.py LEGACY_ATTN_FLAG_TO_IMPL, in its order.
_ATTENTION_FLAGS = {
    "xformers_attention": "xformers",
    "sage_attention": "sage",
    "flex_attention": "flex_attention",
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
}
_LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
_UNSLOTH = (
    *("unsloth_cross_entropy_loss", "unsloth_lora_mlp", "unsloth_lora_qkv", "unsloth_lora_o", "unsloth_rms_norm"),
    "unsloth_rope",
)
_OF_ADAPTERS = (
    *("lora_r", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_modules_to_save"),
    *("lora_exclude_modules", "peft_use_dora"),
)
#: What says when to evaluate; the last is the older name of the one before it.
_WHEN = ("eval_steps", "evals_per_epoch", "eval_strategy", "evaluation_strategy")
#: model_config_type -> storage in fp32 (loaders/model.py _set_quantization_config).
_FP32_STORAGE = ("jamba", "qwen2_moe", "nemotron_h")


def read_axolotl(content: Mapping[str, Any], *, where: str, base: Path, model: object = None) -> Imported:
    """The scenario of an axolotl configuration."""
    source = Source(content, AXOLOTL, where)
    source.guard()
    _removed(source)
    _checkpoint(source)
    ref = hf.read_model(source, "base_model", base, model)
    adapter = source.word("adapter")
    if adapter not in (None, "lora", "qlora"):
        source.refuse("adapter", "is not modelled", hint="lora and qlora are, and full fine-tuning without the key")
    compute = _precision(source)
    _method(source, adapter, ref)
    if adapter:
        _adapters(source, ref, compute)
    else:
        source.ignore(_OF_ADAPTERS, "no adapters without adapter")
    source.plain(BATCH)
    _accumulation(source)
    source.plain(SEQ)
    whole = 0 if adapter else compute.bytes * architecture(source, ref).numel
    read_optimizer(source, "optimizer", _SCHEMA + "training.py", whole=whole)
    attention = _attention(source)
    if source.flag("sample_packing"):
        hf.packed(source, "sample_packing", attention)
    _checkpointing(source)
    read_stack(source, adapter, ref, attention, compute)
    _evaluation(source)
    source.assume("expandable_segments", True, "utils/__init__.py set_pytorch_cuda_alloc_conf")
    return source.finish()


def _precision(source: Source) -> DType:
    """utils/config/__init__.py resolve_dtype: the type of weights and products, and autocast, from four keys."""
    bf16 = source.given("bf16")
    auto = bf16 is None or str(bf16).lower() == "auto"
    fp16 = bool(source.flag("fp16"))
    brain = not fp16 if auto else bool(source.flag("bf16"))
    pure_brain, pure_half = bool(source.flag("bfloat16")), bool(source.flag("float16"))
    source.flag("float32")
    keys = ("bf16", "fp16", "bfloat16", "float16", "float32", "load_in_8bit")
    if brain or pure_brain:
        dtype = DType.BFLOAT16
    elif fp16 or pure_half or source.flag("load_in_8bit"):
        dtype = DType.FLOAT16
    else:
        dtype = DType.FLOAT32
    autocast = "bfloat16" if brain else "float16" if fp16 else False
    if auto and brain:
        why = f"bf16: auto, {_SCHEMA}config.py; float16 on a card without bfloat16"
        source.assume("compute_dtype", dtype.value, why)
        source.assume("stack.autocast", autocast, why)
    else:
        source.read(keys, "compute_dtype", dtype.value)
        source.read(keys, "stack.autocast", autocast)
    return dtype


def _removed(source: Source) -> None:
    """Keys that axolotl 0.19.0 refuses (utils/schemas/validation.py check_deprecated_unsloth_fields)."""
    for key in _UNSLOTH:
        if source.flag(key):
            source.refuse(
                key,
                "is refused by axolotl 0.19.0, which has removed it",
                hint=f"--set {key}=null leaves it out; lora_mlp_kernel, lora_qkv_kernel, lora_o_kernel replace it",
            )
        source.ignore(key, "switched off")


def _checkpoint(source: Source) -> None:
    """A checkpoint that is quantised by other means, unless it is dequantised while it loads: OpenAI's of gpt-oss."""
    key, kwargs_key = "model_quantization_config", "model_quantization_config_kwargs"
    kind, kwargs = source.given(key), source.given(kwargs_key)
    bare = kind == "Mxfp4Config" and isinstance(kwargs, Mapping) and as_flag(kwargs.get("dequantize"))
    if kind is not None and not bare:
        source.refuse(
            key,
            "is training on a model quantised by other means than bitsandbytes",
            hint=f"--set {key}=null reads it as a model of 16 bits, which {kwargs_key}: {{dequantize: true}} makes of"
            " MXFP4",
        )
    source.ignore((key, kwargs_key), "the weights are dequantised into 16 bits" if bare else f"of {key}")


def _method(source: Source, adapter: str | None, model: ModelRef) -> None:
    four, eight = bool(source.flag("load_in_4bit")), bool(source.flag("load_in_8bit"))
    if adapter is None:
        if four or eight:
            key = "load_in_4bit" if four else "load_in_8bit"
            source.refuse(
                key, "without adapter: axolotl trains no quantised model as a whole", hint="add adapter: qlora"
            )
        source.assume("method", "full", f"no adapter, {_SCHEMA}peft.py")
        return
    if adapter == "qlora" and not four:
        source.refuse(
            "adapter", "without load_in_4bit: true, which axolotl requires for it", hint="add load_in_4bit: true"
        )
    if adapter == "qlora" and eight:
        source.refuse("load_in_8bit", "with adapter: qlora", hint="remove it, or use adapter: lora")
    if adapter == "qlora":
        source.read(("adapter", "load_in_4bit"), "method", "qlora")
        _four_bits(source, model)
    elif eight:
        source.read(("adapter", "load_in_8bit"), "method", "qlora")
        source.read("load_in_8bit", "quant.type", "int8")
    else:
        hf.read_adapted(source, "adapter", model, "")
        if four and not source.flag("quantize_moe_experts") and not stored_quant(model.config):
            source.warn(
                "load_in_4bit: with adapter: lora axolotl quantises nothing that is not quantised on the disk, and then"
                " makes the linear layers fp32; adapter: qlora quantises"
            )


def _four_bits(source: Source, model: ModelRef) -> None:
    """loaders/model.py _set_quantization_config: nf4, double, in bfloat16 storage, unless bnb_config_kwargs differ."""
    if stored_quant(model.config):
        source.ignore("bnb_config_kwargs", "the checkpoint's own quantisation goes before it")
        return
    given = source.given("bnb_config_kwargs")
    if given is not None and not isinstance(given, Mapping):
        source.refuse("bnb_config_kwargs", "is not a mapping", hint="bnb_config_kwargs: {bnb_4bit_quant_type: fp4}")
    kwargs = dict(given or {})
    fp32 = model.config.get("model_type") in _FP32_STORAGE
    kind = str(kwargs.pop("bnb_4bit_quant_type", "nf4")).lower()
    double = as_flag(kwargs.pop("bnb_4bit_use_double_quant", True))
    storage = as_dtype(kwargs.pop("bnb_4bit_quant_storage", "float32" if fp32 else "bfloat16"))
    if kind not in ("nf4", "fp4") or double is None:
        source.refuse("bnb_config_kwargs", "is not understood", hint="bnb_config_kwargs: {bnb_4bit_quant_type: fp4}")
    why = f"{LOADER} _set_quantization_config"
    values = {"quant.type": kind, "quant.double": double, "quant.storage": storage.value if storage else "uint8"}
    for ours, value in values.items():
        if given is None:
            source.assume(ours, value, why)
        else:
            source.read("bnb_config_kwargs", ours, value, note=f"over {why}")
    for key, value in kwargs.items():
        if key not in ("llm_int8_threshold", "llm_int8_has_fp16_weight", "bnb_4bit_compute_dtype"):
            source.warn(f"bnb_config_kwargs.{key}: {value}: what it does to memory is not known")


def _adapters(source: Source, model: ModelRef, compute: DType) -> None:
    source.plain(RANK)
    source.plain(DROPOUT)
    read_dora(source, "peft_use_dora")
    if source.flag("lora_target_linear"):
        # loaders/adapter.py load_lora: find_all_linear_names, and what lora_target_modules names beside them.
        targets = every_linear(source, model, source.names("lora_target_modules") or ())
        source.read(("lora_target_linear", "lora_target_modules"), "lora.targets", targets)
    else:
        read_modules(source, "lora_target_modules", model)
    cast = source.flag("peft_autocast_adapter_dtype")
    dtype = compute if cast is False else DType.FLOAT32
    source.take("peft_autocast_adapter_dtype", "lora.dtype", dtype.value, "peft's autocast_adapter_dtype")
    read_saved_modules(source, "lora_modules_to_save", model)
    source.ignore("lora_exclude_modules", "no field of the schema, so gone before loaders/adapter.py asks for it")
    unset = all(source.given(kernel) is None for kernel in _LORA_KERNELS)
    for kernel in _LORA_KERNELS:
        source.pass_on(kernel)
    if unset and not source.flag("load_in_8bit") and not source.flag("trust_remote_code"):
        source.warn(
            "axolotl turns on fused LoRA kernels by itself on one GPU (config.py check_auto_enable_lora_kernels), which"
            " keep fewer activations than predicted; lora_mlp_kernel: false turns them off"
        )
    source.pass_on("trust_remote_code")


def _accumulation(source: Source) -> None:
    """gradient_accumulation_steps, or batch_size over micro_batch_size (utils/config/__init__.py normalize_config)."""
    whole, micro = source.count("batch_size"), source.count("micro_batch_size") or 1
    if source.given("gradient_accumulation_steps") is None and whole is not None:
        source.read(("batch_size", "micro_batch_size"), "grad_accum", max(1, whole // micro))
    else:
        source.ignore("batch_size", "gradient_accumulation_steps and micro_batch_size say it")
        source.plain(GRAD_ACCUM)


def _attention(source: Source) -> str:
    flags = [key for key in _ATTENTION_FLAGS if source.given(key) is not None]
    on = [key for key in flags if source.flag(key)]
    if source.given("attn_implementation") is not None or not on:
        attention = hf.read_attention(source, _SCHEMA + "config.py")
        source.ignore(flags, "attn_implementation says it" if on else "switched off")
        return attention
    source.ignore((key for key in flags if key != on[0]), "switched off")
    return hf.conclude_attention(source, on[0], _ATTENTION_FLAGS[on[0]])


def _checkpointing(source: Source) -> None:
    """Off unless set; reentrant without kwargs (utils/config/__init__.py normalize_config)."""
    value = source.given("gradient_checkpointing")
    if isinstance(value, str) and as_flag(value) is None:
        if not value.startswith(("offload", "unsloth")):
            source.refuse("gradient_checkpointing", "is not understood", hint="true or false")
        source.warn(f"gradient_checkpointing: {value} moves activations to the host's memory; predicted without that")
        on: bool | None = True
    else:
        on = source.flag("gradient_checkpointing")
    reentrant = source.given("gradient_checkpointing_kwargs") is None
    hf.read_checkpointing(source, on, False, _SCHEMA + "config.py", reentrant=reentrant)


def _evaluation(source: Source) -> None:
    """core/builders/base.py _configure_save_and_eval_strategy: something to evaluate on, and a key that says when."""
    data = tuple(key for key in ("val_set_size", "test_datasets") if source.given(key) not in (None, 0))
    when = _when_evaluated(source)
    used: tuple[str, ...] = ()
    if data and when:
        used = (*data, *when, "eval_batch_size")
        batch = source.count("micro_batch_size") or 1
        why = "the training's micro-batch unless eval_batch_size says another"
        hf.read_evaluation(source, (*data, *when), batch, "eval_batch_size", why)
    nothing = "no key says when to evaluate" if data else "there is nothing to evaluate on"
    unused = (key for key in ("val_set_size", "test_datasets", "eval_batch_size", *_WHEN) if key not in used)
    source.ignore(unused, "another key says it" if used else nothing)


def _when_evaluated(source: Source) -> tuple[str, ...]:
    """The keys that make the Trainer evaluate; evals_per_epoch does from two in the whole run on (normalize_config)."""
    per_epoch, epochs = source.number("evals_per_epoch") or 0, source.number("num_epochs") or 1
    source.pass_on("num_epochs")
    asked = {
        "eval_steps": bool(source.number("eval_steps")),
        "evals_per_epoch": per_epoch * epochs > 1,
        **{key: str(source.given(key)) not in ("None", "no", "False") for key in _WHEN[2:]},
    }
    return tuple(key for key, on in asked.items() if on)
