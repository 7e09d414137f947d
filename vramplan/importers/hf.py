"""What the libraries on transformers' Trainer have in common: TRL, axolotl and LLaMA-Factory."""

from collections.abc import Mapping
from pathlib import Path

from vramplan.checkpoint_quant import in_words, other_quant_method, stored_quant
from vramplan.errors import UsageError
from vramplan.importers.keys import TRAINING_ARGUMENTS
from vramplan.importers.source import Source
from vramplan.importers.targets import checkpoint_dtype
from vramplan.importers.values import as_dtype, as_flag
from vramplan.model_source import resolve_model
from vramplan.scenario import DType, ModelRef

#: attn_implementation -> the scenario's word, and whether it is the same code.
_ATTENTION: Mapping[str, tuple[str, bool]] = {
    "sdpa": ("sdpa", True),
    "eager": ("eager", True),
    "flash_attention_2": ("flash_attention_2", True),
    "kernels-community/flash-attn2": ("flash_attention_2", True),
    "kernels-community/flash-attn": ("flash_attention_2", True),
    "xformers": ("sdpa:efficient", False),
    "sage": ("flash_attention_2", False),
    "flex_attention": ("sdpa:flash", False),
    "fp8": ("sdpa", False),
}
#: What is said of packed samples under any attention but flash_attention_2.
PACKED_APART = (
    "packed samples are kept apart by a mask under this attention; the mask, and the kernel that it forces, are not in"
    " the prediction (flash_attention_2 needs none)"
)


def read_model(source: Source, key: str, base: Path, instead: object) -> ModelRef:
    """`model` from the key that names it; `instead` is the model that the user typed, None when none was."""
    name = source.word(key)
    if instead is not None:
        source.take(key, "model", instead, "typed in place of the file's")
        return resolved(source, instead, Path())
    if name is None:
        source.refuse(key, "names no model", hint=f"add '{key}', or set it: --set model=llama-3.1-8b")
    found = place(name, base)
    source.read(key, "model", found)
    return resolved(source, found, base)


def resolved(source: Source, spec: object, base: Path) -> ModelRef:
    """The model that `spec` names; where there is none, the error names the file and how to give another."""
    try:
        found = resolve_model(spec, base=base)
    except UsageError as error:
        hint = f"{error.hint}; or name one: --set model=NAME"
        raise UsageError(f"{source.where}: {error.message}", hint=hint) from error
    if method := other_quant_method(found.config):  # these libraries train adapters on it as it is
        raise UsageError(
            f"{source.where}: {found.name} is quantised by {method}, which no scenario describes",
            hint="name the 16-bit model that it was made of: --set model=NAME",
        )
    return found


def read_adapted(source: Source, key: str, model: ModelRef, origin: str) -> None:
    """`method` of a file with adapters that asks for no quantisation: `lora`, unless the checkpoint has one already,
    which transformers keeps. `origin` is that of the key's default."""
    own = stored_quant(model.config)
    note = f"the checkpoint is quantised already, as {in_words(own)}" if own else ""
    why = "; ".join(filter(None, (origin, note)))
    source.take(key, "method", "qlora" if own else "lora", why, note=note)


def place(name: str, base: Path) -> str:
    """A local path as it can be found: beside the file, else from the working directory, where trainers look."""
    try:
        path = Path(name).expanduser()
        return str(path.resolve()) if path.exists() and not (base / path).exists() else name
    except (OSError, ValueError, RuntimeError):  # a name that no file can have
        return name


def read_attention(source: Source, origin: str) -> str:
    """`attention` from transformers' attn_implementation."""
    key = "attn_implementation"
    name = source.word(key)
    if name is None or name == "auto":
        source.take(key, "attention", "sdpa", f"{origin}: transformers' own choice")
        return "sdpa"
    return conclude_attention(source, key, name)


def conclude_attention(source: Source, key: str, name: str) -> str:
    """`attention` from the word for it that `key` means; what is not modelled is warned about and stood in for.

    A name with "flash" in it is one of flash attention to transformers too (5.17 utils/generic.py
    is_flash_attention_requested), be it another version or a kernel of the hub's.
    """
    stand_in = ("flash_attention_2" if "flash" in name else "sdpa", False)
    known, same = _ATTENTION.get(name.split("@")[0].split(":")[0], stand_in)
    source.read(key, "attention", known)
    if not same:
        source.warn(f"{key}: {name} is not modelled; predicted as {known}", ours="attention")
    return known


def read_checkpointing(source: Source, on: bool | None, default: bool, origin: str, *, reentrant: bool) -> None:
    """`checkpointing` from gradient_checkpointing (`on`) and its kwargs; `reentrant` is what no kwargs mean."""
    keys = ("gradient_checkpointing", "gradient_checkpointing_kwargs")
    kwargs = source.given(keys[1])
    given = kwargs.get("use_reentrant") if isinstance(kwargs, Mapping) else None
    use = reentrant if given is None else as_flag(given)
    if kwargs is not None and (not isinstance(kwargs, Mapping) or use is None):
        source.refuse(keys[1], "is not understood", hint="gradient_checkpointing_kwargs: {use_reentrant: false}")
    kind: bool | str = "reentrant" if use else True
    value = kind if (default if on is None else on) else False
    if on is None and kwargs is None:
        source.assume("checkpointing", value, f"default of gradient_checkpointing, {origin}")
    else:
        source.read(keys, "checkpointing", value)


def read_clipping(source: Source) -> None:
    """`stack.clip` from max_grad_norm: transformers clips when it is above 0 (trainer.py, 5.17.0)."""
    norm = source.number("max_grad_norm")
    why = f"default of max_grad_norm (1.0), {TRAINING_ARGUMENTS}"
    source.take("max_grad_norm", "stack.clip", norm is None or norm > 0, why)


def read_evaluation(source: Source, keys: tuple[str, ...], batch: int, batch_key: str, origin: str) -> None:
    """`eval` when the run evaluates: the Trainer looks at the loss alone where nobody computes metrics."""
    source.read((*keys, batch_key), "eval", {"batch": source.count(batch_key) or batch}, note=origin)


def read_trainers_evaluation(source: Source) -> None:
    """`eval` from TrainingArguments' own keys."""
    keys = tuple(key for key in ("eval_strategy", "evaluation_strategy") if source.word(key) not in (None, "no"))
    if keys:
        read_evaluation(source, keys, 8, "per_device_eval_batch_size", "losses alone, without metrics")


def model_dtype(source: Source, model: ModelRef, instead: DType) -> DType:
    """What `auto` means for the weights: the type that config.json states; `instead`, with a warning, where none is."""
    stated = as_dtype(checkpoint_dtype(model.config))
    if stated is None:
        source.warn(
            f"the element type of {model.name}'s weights is not in its config.json; predicted as {instead.value}",
            ours="dtype",
        )
    return stated or instead


def mixed_precision(source: Source) -> DType | None:
    """What autocast computes in by the two switches that transformers has; None without either."""
    if source.flag("bf16"):
        return DType.BFLOAT16
    return DType.FLOAT16 if source.flag("fp16") else None


def packed(source: Source, key: str, attention: str) -> None:
    """A note that packing fills every batch, and a warning where the scenario's `attention` then needs a mask."""
    source.ignore(key, "every batch is then full, which is what is predicted")
    if attention != "flash_attention_2":
        source.warn(f"{key}: {PACKED_APART}", ours="attention")
