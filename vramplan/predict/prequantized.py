"""Checkpoints that are quantised already: what their config.json says goes before what a scenario asks for."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from vramplan.checkpoint_quant import in_words, quant_method, stored_quant
from vramplan.predict.base import prepared_element
from vramplan.predict.quantization import bits, is_quantized
from vramplan.scenario import Load, QuantType, Scenario
from vramplan.units import human


def prequantized_warnings(scenario: Scenario) -> list[str]:
    """Where the checkpoint is quantised otherwise than is predicted, what it is; nothing for any other."""
    found = scenario.model.config.get("quantization_config")
    if not isinstance(found, Mapping) or scenario.load_from is not Load.CHECKPOINT:
        return []
    return [*filter(None, (_otherwise(scenario), _left_out(scenario, found)))]


def _left_out(scenario: Scenario, found: Mapping[str, Any]) -> str:
    """Layers that the checkpoint leaves in 16 bits, as Unsloth's dynamic ones do, and a prediction quantises."""
    names = found.get("llm_int8_skip_modules")
    if not isinstance(names, list) or scenario.quant.type is QuantType.NONE:
        return ""
    known = scenario.architecture
    left = [w for w in known.parameters() if is_quantized(w, scenario.quant) and _skipped(w.owner, map(str, names))]
    if not left:
        return ""
    count = sum(weight.numel for weight in left)
    bare = replace(scenario, quant=replace(scenario.quant, type=QuantType.NONE))
    plain = sum(weight.numel * prepared_element(weight, bare) for weight in left)
    more = plain - int(count * bits(known, scenario.quant).per_parameter / 8)
    return (
        f"the checkpoint leaves {count:,} parameters of linear layers unquantised (llm_int8_skip_modules), which are "
        f"predicted as quantised: they take {human(more)} more"
    )


def _skipped(module: str, patterns: Iterable[str]) -> bool:
    """transformers quantizers/quantizers_utils.py `should_convert_module`: the module's path begins as one of the
    patterns, read as an expression, or ends with one."""
    return any(_matches(pattern, module) or module.endswith(pattern) for pattern in patterns)


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.match(pattern, module) is not None
    except re.error:
        return False


def _otherwise(scenario: Scenario) -> str:
    method, own = quant_method(scenario.model.config), stored_quant(scenario.model.config)
    if own is None:
        return (
            f"the checkpoint is quantised by {method}, whose weights no scenario describes: a 16-bit one is predicted"
        )
    asked = scenario.quant
    if (own.type, own.double) == (asked.type, asked.double):
        return ""
    return (
        f"the checkpoint is quantised already, as {in_words(own)}, and transformers keeps that; {in_words(asked)} is"
        " predicted"
    )
