"""What axolotl's loader and plugins make of the model (axolotl 0.19.0): element types, loss, Liger's kernels."""

from vramplan.architecture import WeightKind
from vramplan.importers import hf
from vramplan.importers.liger import read_kernels, read_loss
from vramplan.importers.source import Source
from vramplan.importers.targets import architecture
from vramplan.predict.base import is_vocabulary
from vramplan.predict.liger import in_order
from vramplan.predict.stops import LIGER_ON_WRAPPED_EXPERTS
from vramplan.scenario import DType, ModelRef
from vramplan.stacks import LayerKernel
from vramplan.units import human

LOADER = "axolotl 0.19.0 loaders/model.py"
_LIGER_KERNELS = {
    "liger_rope": LayerKernel.ROPE,
    "liger_rms_norm": LayerKernel.RMS_NORM,
    "liger_swiglu": LayerKernel.MLP,
    "liger_glu_activation": LayerKernel.MLP,
}


def read_stack(source: Source, adapter: str | None, model: ModelRef, attention: str, compute: DType) -> None:
    """The Trainer's loop with what the loader and the plugins change."""
    plugins = source.names("plugins") or []
    liger = any("liger" in plugin.lower() for plugin in plugins)
    cut = any("cut_cross_entropy" in plugin.lower() or "CutCrossEntropy" in plugin for plugin in plugins)
    unknown = [
        p for p in plugins if not any(word in p.lower() for word in ("liger", "cut_cross_entropy", "cutcrossentropy"))
    ]
    for plugin in unknown:
        source.warn(f"plugins: {plugin}: what it does to memory is not known")
    cut = cut and source.flag("cut_cross_entropy") is not False
    if adapter:
        _upcast(source, model)
    else:
        _whole(source, model, cast_back=cut or attention not in ("sdpa", "eager") or compute is DType.FLOAT32)
    _loss(source, model, liger=liger, cut=cut)
    _liger_kernels(source, model, liger=liger)
    hf.read_clipping(source)


def _upcast(source: Source, model: ModelRef) -> None:
    """`stack.upcast`: load_in_4bit or load_in_8bit has peft prepare the model, quantised or not.

    peft makes everything of 16 bits fp32; _configure_embedding_dtypes casts back norms, embeddings and head alone.
    """
    bits = [key for key in ("load_in_4bit", "load_in_8bit") if source.flag(key)]
    skips = bool(source.flag("embeddings_skip_upcast")) and "load_in_4bit" in bits
    if not bits:
        source.ignore("quantize_moe_experts", "of load_in_4bit and load_in_8bit")
        source.assume("stack.upcast", "none", f"{LOADER} prepares for k-bit training with load_in_4bit or load_in_8bit")
    elif _quantizes_experts(source, model, half_bytes="load_in_4bit" in bits):
        why = f"{LOADER} _prepare_model_for_quantization leaves out a model whose experts are quantised"
        source.read((*bits, "quantize_moe_experts"), "stack.upcast", "none", note=why)
    elif skips:
        why = f"{LOADER} _configure_embedding_dtypes then casts back norms alone, which are small"
        source.read(("load_in_4bit", "embeddings_skip_upcast"), "stack.upcast", "all", note=why)
        return
    else:
        why = f"{LOADER} _configure_embedding_dtypes casts back norms, embeddings and head, and nothing else"
        source.read(bits, "stack.upcast", "rest", note=why)
    source.ignore("embeddings_skip_upcast", "nothing that load_in_4bit casts")


def _quantizes_experts(source: Source, model: ModelRef, *, half_bytes: bool) -> bool:
    """Whether quantize_moe_experts finds experts; the scenario keeps them in 16 bits, which is an upper bound.

    monkeypatch/moe_quant.py: int8 with a constant for each row, or 4 bits with one of fp32 for 64 at the most.
    """
    wanted = source.flag("quantize_moe_experts")
    counted = architecture(source, model).counted
    experts = sum(w.numel * times for w, times in counted if w.kind is WeightKind.EXPERTS)
    if not wanted or not experts:
        source.ignore("quantize_moe_experts", "no experts" if wanted else "switched off")
        return False
    above = 2 * experts - (experts * 9 // 16 if half_bytes else experts)
    source.warn(
        "quantize_moe_experts: true quantises the experts too, and the prediction keeps them in 16 bits: an upper"
        f" bound, up to {human(above)} too high",
        above=above,
    )
    return True


def _whole(source: Source, model: ModelRef, *, cast_back: bool) -> None:
    """Full fine-tuning: _configure_embedding_dtypes makes norms, embeddings and head fp32.

    It casts them back for flash attention (attn_needs_dtype_cast) or cut_cross_entropy alone.
    """
    source.assume("stack.upcast", "none", "full fine-tuning prepares nothing for k-bit training")
    source.ignore(("embeddings_skip_upcast", "quantize_moe_experts"), "of quantised models")
    if cast_back:
        return
    known = architecture(source, model)
    wide = sum(w.numel * times for w, times in known.counted if w.kind is WeightKind.NORM or is_vocabulary(w, known))
    source.warn(
        f"full fine-tuning keeps norms, embeddings and head in fp32 under sdpa and eager ({LOADER}): {wide:,}"
        f" parameters, whose weights and gradients take {human(4 * wide)} more than predicted, and their states and"
        " activations more yet"
    )


def _loss(source: Source, model: ModelRef, *, liger: bool, cut: bool) -> None:
    fused = source.flag("liger_fused_linear_cross_entropy")
    wanted = source.flag("cut_cross_entropy")
    if fused and liger:
        if source.flag("liger_cross_entropy"):
            source.refuse(
                "liger_cross_entropy",
                "with liger_fused_linear_cross_entropy, which axolotl refuses",
                hint="keep one of the two",
            )
        read_loss(source, ("plugins", "liger_fused_linear_cross_entropy"), model)
    elif cut:
        source.read(("plugins", "cut_cross_entropy"), "stack.loss", "chunked")
        source.warn("cut_cross_entropy makes the logits in tiles; predicted as the chunked loss", ours="stack.loss")
    else:
        source.assume("stack.loss", "torch", "transformers' loss")
        if fused or wanted:
            key = "liger_fused_linear_cross_entropy" if fused else "cut_cross_entropy"
            source.warn(f"{key}: true does nothing without its plugin in plugins", ours="stack.loss")
        if liger:
            source.ignore("plugins", "no fused loss is asked for")


def _liger_kernels(source: Source, model: ModelRef, *, liger: bool) -> None:
    """integrations/liger/plugin.py: what is switched on, of a family's functions those that it has."""
    source.flag("liger_layer_norm")
    source.ignore("liger_layer_norm", "no family whose layers Liger replaces has a LayerNorm there")
    keys = [key for key in _LIGER_KERNELS if source.flag(key)]
    source.ignore((key for key in _LIGER_KERNELS if key not in keys), "switched off")
    if liger and {"liger_swiglu", "liger_glu_activation"} <= {*keys}:
        source.refuse("liger_swiglu", "with liger_glu_activation, which axolotl refuses", hint="keep one of the two")
    if keys and not liger:
        source.warn(f"{', '.join(keys)}: true does nothing without its plugin in plugins", ours="stack.kernels")
    elif keys:
        asked = {_LIGER_KERNELS[key] for key in keys}
        read_kernels(source, keys, model, in_order(asked))
        source.deny(LIGER_ON_WRAPPED_EXPERTS)  # pre_model_load patches the classes
