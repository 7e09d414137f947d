"""Which trainer a file belongs to, by its keys."""

from collections.abc import Mapping
from typing import Any

from vramplan.errors import UsageError
from vramplan.importers.keys import Format
from vramplan.importers.vocabulary import VOCABULARIES
from vramplan.importers.vocabulary.base import words

#: Keys that a scenario has and the formats do not use, or use for sections only (scenario_schema.py: ScenarioKeys).
_SCENARIO = frozenset({"model", "quant", "lora", "matrix", "stack", "gpu", "batch", "seq", "grad_accum", "method"})
#: Beside model_name_or_path, keys that TRL shares: with axolotl, whose models are called base_model, max_length with
#: LLaMA-Factory, where it is for generation.
_TRL_BESIDE = words(
    """
    lora_r lora_target_modules load_in_4bit load_in_8bit attn_implementation bnb_4bit_quant_type bnb_4bit_compute_dtype
    dtype torch_dtype max_length
    """
)
KNOWN = (
    "a vramplan scenario (model), TRL (model_name_or_path with use_peft, max_length or dataset_name), axolotl"
    " (base_model), LLaMA-Factory (model_name_or_path with finetuning_type, template or cutoff_len), torchtune"
    " (model._component_), peft's adapter_config.json (peft_type)"
)


def recognise(content: Mapping[str, Any], where: str) -> Format | None:
    """The format of a file's mapping; None for a vramplan scenario.

    A file of which nothing tells, or whose keys are of several formats, is a UsageError with the known formats.
    """
    model = content.get("model")
    if _built(model) or ("model" not in content and any(map(_built, content.values()))):  # PPO has no `model`
        return Format.TORCHTUNE
    found = {
        name: sorted(v.decisive & content.keys()) for name, v in VOCABULARIES.items() if v.decisive & content.keys()
    }
    if len(found) == 1 and "model" not in content:
        return next(iter(found))
    if "model" in content and not _foreign(content):
        return None
    if found:
        keys = "; ".join(f"{VOCABULARIES[name].title}: {', '.join(keys[:4])}" for name, keys in found.items())
        own = "; vramplan: model" if "model" in content else ""
        raise UsageError(
            f"{where}: keys of several formats ({keys}{own})", hint=f"keep those of one; known are {KNOWN}"
        )
    if "model_name_or_path" in content and _TRL_BESIDE & content.keys():
        return Format.TRL
    if _SCENARIO & content.keys() or not content:
        return None
    what = (
        "TRL and LLaMA-Factory both have model_name_or_path"
        if "model_name_or_path" in content
        else "no key names a model"
    )
    raise UsageError(f"{where}: not a configuration that can be recognised: {what}", hint=f"known are {KNOWN}")


def _built(section: object) -> bool:
    """Whether a section names the class or function that makes it, as torchtune's do."""
    return isinstance(section, Mapping) and "_component_" in section


def _foreign(content: Mapping[str, Any]) -> bool:
    """Whether a file with `model:` also names its model in another trainer's way."""
    return bool({"base_model", "model_name_or_path", "peft_type"} & content.keys())
