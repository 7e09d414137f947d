"""Which modules get adapters: peft's lists, patterns and defaults, as names that a scenario can hold."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vramplan.architecture import Architecture, WeightKind
from vramplan.element_types import type_name
from vramplan.errors import UnknownArchitecture, UsageError
from vramplan.importers.source import Source
from vramplan.predict.expert_targets import resolve_targets
from vramplan.predict.saved_modules import has_module
from vramplan.scenario import ALL_LINEAR, DType, Lora, ModelRef

#: peft 0.21.2 utils/constants.py TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, the decoders among them.
_DEFAULTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "llama4", "mistral", "mixtral", "stablelm", "opt", "gptj"), ("q_proj", "v_proj")),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "gpt_neo"), ("q_proj", "v_proj")),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn",)),
    **dict.fromkeys(("bloom", "gpt_neox", "falcon", "chatglm"), ("query_key_value",)),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "nemotron_h": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mpt": ("Wqkv",),
    "codegen": ("qkv_proj",),
}
_LONGEST_PATTERN = 2000
#: `.*` and its like in one pattern: with four of them, and no repeated group, a module's path is matched in time.
_MOST_WILDCARDS = 4
_WILDCARD = re.compile(r"(?<!\\)(?:[*+]|\{\d*,\d*\})")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)(?:[*+]|\{)")


def read_modules(source: Source, key: str, model: ModelRef) -> None:
    """`lora.targets` from peft's `target_modules`: names, `all-linear`, a pattern, or peft's default for the family."""
    value = source.given(key)
    if value is None:
        _default(source, key, model)
    elif isinstance(value, str) and value.strip().lower() == ALL_LINEAR:  # peft takes it in any case
        source.read(key, "lora.targets", ALL_LINEAR)
    elif isinstance(value, str) and value.isidentifier():
        source.refuse(
            key,
            "is a pattern for whole module paths to peft, and matches none",
            hint=f"write a list: [{value}]",
        )
    elif isinstance(value, str):
        source.read(
            key, "lora.targets", matched(source, key, value, model), note="the modules that the pattern matches"
        )
    else:
        names = source.names(key) or []
        source.read(key, "lora.targets", ALL_LINEAR if names == [ALL_LINEAR] else names)


def read_names(source: Source, key: str, model: ModelRef, *, everything: str, origin: str) -> None:
    """`lora.targets` from names that a library hands to peft as a list; `everything` is its default, each nn.Linear."""
    names = source.names(key)
    value = every_linear(source, model) if names in (None, [everything]) else names
    source.take(key, "lora.targets", ALL_LINEAR if value == [ALL_LINEAR] else value, f"default of {key}, {origin}")


def every_linear(source: Source, model: ModelRef, more: Iterable[str] = ()) -> str | list[str]:
    """`lora.targets` of a library that lists every nn.Linear but the head by name, and `more` of the model's beside.

    That is peft's `all-linear` but for mixtures of experts: to the string, not to a list, peft adds the experts and the
    router (peft 0.21.2 utils/transformers_weight_conversion.py _resolve_string_target_modules).
    """
    found = architecture(source, model)
    linear = list(dict.fromkeys(w.module for w, _ in found.counted if w.adaptable))
    heads = [w.module for w in found.after if w.kind is WeightKind.HEAD]
    everything = resolve_targets(found, Lora(rank=1, targets=(ALL_LINEAR,), dropout=0.0, dtype=DType.FLOAT32))
    beside = [name for name in more if name not in linear and name in (*heads, *everything.known)]
    lost = [name for name in more if name not in (*linear, *beside)]
    if lost:
        what = "has no weights of its own" if len(lost) == 1 else "have no weights of their own"
        source.warn(
            f"lora.targets: {', '.join(lost)} {what} in {model.name}; not in the prediction", ours="lora.targets"
        )
    return [*linear, *beside] if beside or everything.parameters else ALL_LINEAR


def _default(source: Source, key: str, model: ModelRef) -> None:
    """What peft adapts when nothing is named: a table by model_type, and an error for others."""
    family = str(model.config.get("model_type", ""))
    if family not in _DEFAULTS:
        raise UsageError(
            f"{source.where}: no {key}, and peft has no default for model_type '{family}'",
            hint=f"add {key}: all-linear, or name modules with --targets",
        )
    why = f"peft 0.21.2 utils/constants.py, its default for model_type {family}"
    source.assume("lora.targets", list(_DEFAULTS[family]), why)


def matched(source: Source, key: str, pattern: str, model: ModelRef) -> list[str]:
    """The names that stand for the modules a pattern matches (peft: re.fullmatch over each module's path).

    A pattern that picks some layers only, or that might take forever, is a UsageError.
    """
    if len(pattern) > _LONGEST_PATTERN or _REPEATED_GROUP.search(pattern) or _wildcards(pattern) > _MOST_WILDCARDS:
        source.refuse(key, "is too involved a pattern to resolve", hint="name the modules: [q_proj, v_proj]")
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        source.refuse(key, f"is no regular expression: {error}", hint="name the modules: [q_proj, v_proj]")
    paths = _module_paths(architecture(source, model))
    inside = bool(model.note)  # a language model taken out of a whole, where its modules have longer paths
    hit = {path: any(map(compiled.fullmatch, _spellings(path, inside=inside))) for path in paths}
    names = list(dict.fromkeys(name for path, name in paths.items() if hit[path]))
    if not names:
        source.refuse(key, f"matches no module of {model.name}", hint="name the modules: [q_proj, v_proj]")
    parts = [path for path, name in paths.items() if name in names and not hit[path]]
    if parts:
        source.refuse(
            key,
            f"leaves out modules such as {parts[0]}; a scenario's targets are the same in every layer",
            hint=f"name the modules for all layers: {', '.join(names)}",
        )
    return names


def _spellings(path: str, *, inside: bool) -> Iterator[str]:
    """A module's path as patterns have it; in a model that also sees, `layers` stand in `model.language_model`."""
    yield path
    if inside:
        yield path.replace("model.", "model.language_model.", 1)


def _wildcards(pattern: str) -> int:
    """The most repetitions that can follow each other: the outermost alternatives are tried one after the other."""
    depth, branches = 0, [""]
    for letter in pattern:
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            branches.append("")
        else:
            branches[-1] += letter
    return max(len(_WILDCARD.findall(branch)) for branch in branches)


def _module_paths(model: Architecture) -> dict[str, str]:
    """Paths of the modules that can have an adapter, each with the name that targets use."""
    return {w.path.rpartition(".")[0]: w.module for w in model.parameters() if w.adaptable or w.kind is WeightKind.HEAD}


def architecture(source: Source, model: ModelRef) -> Architecture:
    """The model's weights; a family that is not known is a UsageError that names the file."""
    try:
        return model.architecture
    except UnknownArchitecture as error:
        raise UsageError(f"{source.where}: {error.message}", hint=error.hint) from error


def check_task(source: Source, key: str) -> None:
    """Refuse adapters for another head than the one over the vocabulary (peft 0.21.2 utils/peft_types.py TaskType)."""
    task = source.word(key)
    if task is not None and task.upper() != "CAUSAL_LM":
        source.refuse(key, "has another head than a language model's", hint="CAUSAL_LM is modelled")
    source.ignore(key, "what is modelled")


def read_dora(source: Source, key: str) -> None:
    """`lora.dora` from a library that leaves DoRA to peft."""
    if source.flag(key):
        source.read(key, "lora.dora", value=True)
    else:
        source.ignore(key, "plain LoRA")


def read_saved_modules(source: Source, key: str, model: ModelRef) -> None:
    """`lora.modules_to_save` from the modules that a file has trained whole; peft passes over names that it misses."""
    names = source.names(key)
    if not names:
        return
    known = architecture(source, model)
    lost = [name for name in names if not has_module(known, name)]
    if lost:
        source.warn(f"{key}: {model.name} has no module {', '.join(lost)}; not in the prediction")
    source.read(key, "lora.modules_to_save", [name for name in names if name not in lost])


def checkpoint_dtype(config: Mapping[str, Any]) -> str | None:
    """The element type that a configuration states for its weights; None when it states none."""
    value = config.get("dtype") or config.get("torch_dtype")
    return type_name(value) if value else None
