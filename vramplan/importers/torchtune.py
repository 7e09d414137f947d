"""torchtune: the YAML of `tune run lora_finetune_single_device --config file.yaml` (torchtune 0.6.1, recipes/)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vramplan.errors import UsageError
from vramplan.importers import hf
from vramplan.importers.imported import Imported
from vramplan.importers.interpolation import interpolated
from vramplan.importers.keys import BATCH, DROPOUT, GRAD_ACCUM, RANK
from vramplan.importers.optimizers import read_component
from vramplan.importers.source import Source
from vramplan.importers.targets import architecture
from vramplan.importers.torchtune_models import Builder, builder, hub_model
from vramplan.importers.values import as_flag
from vramplan.importers.vocabulary.torchtune import TORCHTUNE
from vramplan.scenario import DType, ModelRef
from vramplan.units import human

_RECIPES = "torchtune 0.6.1 recipes/*_finetune_single_device.py"  # lora and full do the same in what is said of them
#: modules/attention.py and feed_forward.py of torchtune -> transformers' names of the same layers.
_ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
#: Bytes per logit of torch's cross entropy in backward: the log-softmax and two gradients of its size, in fp32.
_LARGEST_LOSS = 3 * DType.FLOAT32.bytes
_MLP = ("gate_proj", "up_proj", "down_proj")
#: Families whose projections are fused in transformers and apart in torchtune (models/phi3/_convert_weights.py).
_FUSED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}


def read_torchtune(content: Mapping[str, Any], *, where: str, base: Path, model: object = None) -> Imported:
    """The scenario of a torchtune configuration."""
    source = Source(_flat(interpolated(content, where)), TORCHTUNE, where)
    source.guard()
    built = _builder(source)
    ref = _model(source, built.name, base, model)
    dtype = _precision(source)
    quantized = built.quantized or bool(source.flag("model.quantize_base"))
    method = "full" if not built.adapts else "qlora" if quantized else "lora"
    source.read(("model._component_", "model.quantize_base"), "method", method)
    if method == "qlora":
        _quantization(source, dtype)
    if built.adapts:
        _adapters(source, ref, dtype)
    source.plain(BATCH)
    source.plain(GRAD_ACCUM)
    _length(source)
    read_component(source)
    _attention(source, built.name)
    on = source.flag("enable_activation_checkpointing")
    source.take("enable_activation_checkpointing", "checkpointing", bool(on), f"off unless set, {_RECIPES}")
    _stack(source)
    _loss(source, ref, dtype)
    _backward_steps(source, ref, dtype, method)
    return source.finish()


def _builder(source: Source) -> Builder:
    component = source.word("model._component_")
    if component is None:
        source.refuse("model._component_", "names no model", hint="such as torchtune.models.llama3_1.lora_llama3_1_8b")
    built = builder(component)
    if built is None:
        source.refuse(
            "model._component_", "is no language model that is read", hint="a builder such as lora_llama3_1_8b"
        )
    return built


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as dotted keys: `model.lora_rank`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _model(source: Source, name: str, base: Path, instead: object) -> ModelRef:
    """The model's own files where the checkpointer finds them, else the published model that the builder makes."""
    if instead is not None:
        return hf.read_model(source, "model._component_", base, instead)
    directory = source.word("checkpointer.checkpoint_dir")
    if directory is not None:
        found = hf.place(directory, base)
        try:
            local = (base / Path(found).expanduser() / "config.json").is_file()
        except (OSError, ValueError, RuntimeError):
            local = False
        if local:
            source.read("checkpointer.checkpoint_dir", "model", found)
            return hf.resolved(source, found, base)
        source.ignore("checkpointer.checkpoint_dir", "no config.json there: the builder says which model it is")
    published = hub_model(name)
    if published is None:
        raise UsageError(
            f"{source.where}: model._component_: no published model is known for the builder '{name}'",
            hint="set it: --set model=DIRECTORY with its config.json",
        )
    source.read("model._component_", "model", published)
    return hf.resolved(source, published, base)


def _precision(source: Source) -> DType:
    """Everything is in `dtype`: weights, adapters, activations, gradients and optimizer states."""
    dtype = source.dtype("dtype") or DType.FLOAT32
    if dtype is DType.FLOAT16:
        source.refuse("dtype", "is refused by torchtune's recipes", hint="bf16 or fp32")
    origin = "torchtune 0.6.1 training/precision.py: fp32 without a dtype"
    source.take("dtype", "compute_dtype", dtype.value, origin)
    source.take("dtype", "dtype", dtype.value, origin)
    source.assume("load", "random", "the model is built on the device and then filled, not loaded by transformers")
    return dtype


def _quantization(source: Source, dtype: DType) -> None:
    """torchao's NF4Tensor: blocks of 64, their scales in 8 bits per 256 (modules/low_precision/nf4_linear.py)."""
    why = "torchao's NF4Tensor, torchtune 0.6.1 modules/low_precision/nf4_linear.py"
    source.assume("quant.type", "nf4", why)
    source.assume("quant.double", True, why)
    source.warn(
        "torchtune quantises with torchao: as many bits as nf4 with double quantisation, but every product makes its"
        f" whole {dtype.value} matrix; the prediction's products are those of bitsandbytes"
    )


def _adapters(source: Source, model: ModelRef, dtype: DType) -> None:
    source.plain(RANK)
    source.plain(DROPOUT)
    names = source.names("model.lora_attn_modules")
    if names is None:
        source.refuse("model.lora_attn_modules", "names no modules", hint="lora_attn_modules: [q_proj, v_proj]")
    for name in names:
        if name not in _ATTENTION:
            source.refuse("model.lora_attn_modules", f"has an unknown module '{name}'", hint=", ".join(_ATTENTION))
    targets = [_ATTENTION[name] for name in names]
    if source.flag("model.apply_lora_to_mlp"):
        targets += _MLP
    fused = model.config.get("model_type") == "phi3"
    if fused:
        targets = list(dict.fromkeys(_FUSED.get(name, name) for name in targets))
        source.warn(
            "torchtune keeps this family's projections apart; predicted with adapters on transformers' fused ones"
        )
    if source.flag("model.apply_lora_to_output"):
        targets.append("lm_head")
    keys = ("model.lora_attn_modules", "model.apply_lora_to_mlp", "model.apply_lora_to_output")
    source.read(keys, "lora.targets", targets)
    source.assume("lora.dtype", dtype.value, f"adapters have the model's dtype, {_RECIPES}")


def _length(source: Source) -> None:
    length = source.count("tokenizer.max_seq_len")
    packed = source.flag("dataset.packed")
    if length is None:
        source.assume("seq", 2048, "tokenizer.max_seq_len is null: nothing is cut")
        source.warn(
            "tokenizer.max_seq_len: null: samples may be of any length; predicted with 2,048 tokens (--seq)", ours="seq"
        )
    else:
        source.read("tokenizer.max_seq_len", "seq", length)
    if packed:
        hf.packed(source, "dataset.packed", "sdpa")


def _attention(source: Source, name: str) -> None:
    """scaled_dot_product_attention for all but Gemma 2, whose scores are capped before their softmax."""
    if not name.startswith("gemma2_"):
        source.assume("attention", "sdpa", "torchtune 0.6.1 modules/attention_utils.py: scaled_dot_product_attention")
        return
    source.assume("attention", "eager", "torchtune 0.6.1 models/gemma2/_attention.py: capped scores of the whole batch")
    source.warn(
        "torchtune's Gemma 2 adds an fp32 mask to its scores, so that their sum is fp32 (models/gemma2/_attention.py);"
        " predicted as transformers' eager, which adds in the scores' own type and takes less",
        ours="attention",
    )


def _stack(source: Source) -> None:
    """A loop of its own: logits freed before backward, no autocast, no upcast, clipping where it is asked for."""
    source.assume("stack.base", "script", f"a loop of its own, {_RECIPES}")
    source.assume("stack.upcast", "none", "nothing is upcast: everything is in dtype")
    source.assume("stack.autocast", False, "no autocast: everything is in dtype")
    source.assume("stack.outputs", "freed", f"_loss_step deletes the logits before backward, {_RECIPES}")
    clip = source.given("clip_grad_norm")
    source.take(
        "clip_grad_norm", "stack.clip", clip is not None and as_flag(clip) is not False, f"off unless set, {_RECIPES}"
    )


def _loss(source: Source, model: ModelRef, dtype: DType) -> None:
    """Torch's cross entropy, which CEWithChunkedOutputLoss is closer to than to one that never has all logits."""
    key = "loss._component_"
    name = (source.word(key) or "").rpartition(".")[2]
    if "DPO" in name or "PPO" in name or "RSO" in name or "SimPO" in name:
        source.refuse(key, "is a loss of preference training, not SFT", hint="give the configuration of an SFT run")
    if "KL" in name:
        source.refuse(key, "is a loss of distillation, not SFT", hint="give the configuration of an SFT run")
    source.take(key, "stack.loss", "torch", "cross entropy")
    if name == "CEWithChunkedOutputLoss":
        more = architecture(source, model).vocab * (_LARGEST_LOSS - (dtype.bytes + DType.FLOAT32.bytes))
        source.warn(
            "CEWithChunkedOutputLoss casts the logits to fp32 in 8 chunks, but makes all of them and keeps each chunk's"
            " log-softmax (modules/loss/ce_chunked_output_loss.py); predicted as torch, which takes up to"
            f" {human(more)} more for each token",
            ours="stack.loss",
            above_token=more,
        )
    elif name not in ("", "CrossEntropyLoss"):
        source.warn(f"{key}: {name} is not known; predicted as torch's cross entropy", ours="stack.loss")


def _backward_steps(source: Source, model: ModelRef, dtype: DType, method: str) -> None:
    """recipes/full_finetune_single_device.py: each parameter has an optimizer of its own, which steps in backward."""
    if method == "full" and source.flag("optimizer_in_bwd"):
        gradients = architecture(source, model).numel * dtype.bytes
        source.warn(
            "optimizer_in_bwd: true steps each parameter as its gradient arrives; predicted with all gradients at once,"
            f" which is too much by up to their {human(gradients)}, and by what a step of all parameters makes beside"
            " them",
            above=gradients,
        )
