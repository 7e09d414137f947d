"""Adapters on mixtures of experts: peft turns the names of projections that were fused into targets of parameters.

peft 0.21.2 utils/transformers_weight_conversion.py _convert_peft_config_moe. transformers 5 fused each layer's experts
into 3-D parameters; names of the old projections, and `all-linear`, still mean them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from vramplan.architecture import Architecture, Weight
from vramplan.errors import UsageError
from vramplan.scenario import ALL_LINEAR, Lora

#: _MOE_TARGET_MODULE_MAPPING: the old module's name -> the parameter that it is now, per conversion pattern.
_MIXTRAL = {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"}
_QWEN2_MOE = {
    "gate": "gate.weight",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}

#: Families whose checkpoints call the experts as Mixtral's do.
LIKE_MIXTRAL = ("mixtral", "minimax", "minimax_m2")

#: transformers 5.17 conversion_mapping.py _MODEL_TO_CONVERSION_PATTERN: which families follow which pattern.
_PATTERNS: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(LIKE_MIXTRAL, _MIXTRAL),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "qwen3_next", "deepseek_v2", "deepseek_v3", "deepseek_v32"), _QWEN2_MOE),
    **dict.fromkeys(("glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "dots1", "ernie4_5_moe", "olmoe"), _QWEN2_MOE),
    **dict.fromkeys(("afmoe", "longcat_flash", "solar_open", "mellum", "hunyuan_v1_moe"), _QWEN2_MOE),
    **dict.fromkeys(("flex_olmo", "exaone_moe", "cohere2_moe"), _QWEN2_MOE),
}

#: Its pattern's own name is no key of the mapping, so `_convert_peft_config_moe` leaves its targets as they are (peft
#: adds Mixtral's).
_UNCONVERTED = ("qwen2_moe",)


def fused_projections(family: str, weight: Weight) -> tuple[str, ...]:
    """The projections of a checkpoint that each expert's part of a 3-D parameter is made of; none if nothing is joined.

    conversion_mapping.py: these families' checkpoints store every expert's matrices apart.
    """
    name = weight.path.rpartition(".")[2]
    return tuple(old for old, parameter in _PATTERNS.get(family, {}).items() if parameter == name)


class Targets(NamedTuple):
    """What is adapted: modules by name, and bare parameters."""

    modules: tuple[str, ...]
    """Names of modules, or `('all-linear',)`."""
    parameters: Mapping[str, int]
    """End of a parameter's path -> how many old projections it holds: its rank is as many times the scenario's."""
    known: tuple[str, ...]
    """Names of old projections that the family also takes as targets."""
    without: tuple[str, ...] = ()
    """Names of modules that have no adapter, whatever is targeted, because they are trained whole."""

    def rank_factor(self, weight: Weight) -> int:
        """How many times the scenario's rank the adapter of a bare parameter has; 0 when it gets none."""
        for end, factor in self.parameters.items():
            if weight.path.endswith(f".{end}"):
                return factor
        return 0


def resolve_targets(architecture: Architecture, lora: Lora) -> Targets:
    """The scenario's targets as peft reads them for this family."""
    pattern = _PATTERNS.get(architecture.family)
    if pattern is None or architecture.family in _UNCONVERTED:
        return Targets(lora.targets, {}, (), lora.modules_to_save)
    names = lora.targets
    if names == (ALL_LINEAR,):
        linear = (weight.module for weight, _ in architecture.counted if weight.adaptable)
        names = tuple(dict.fromkeys((*linear, *pattern)))
    old = {name: _old_name(name, pattern) for name in names}
    present: dict[str, set[str]] = {}
    for name in filter(None, old.values()):
        present.setdefault(pattern[name], set()).add(name)
    for parameter, found in present.items():
        needed = {name for name, new in pattern.items() if new == parameter}
        if found != needed:
            raise UsageError(
                f"target {', '.join(sorted(found))} of {architecture.name} without {', '.join(sorted(needed - found))}",
                hint=f"the experts hold them fused as {parameter}: peft adapts both or neither",
            )
    modules = tuple(name for name in names if not old[name])
    parameters = {parameter: len(found) for parameter, found in present.items()}
    return Targets(modules, parameters, tuple(pattern), lora.modules_to_save)


def _old_name(target: str, pattern: Mapping[str, str]) -> str:
    """The old projection that a target names; empty when it names a module."""
    return next((name for name in pattern if target == name or target.endswith(f".{name}")), "")
