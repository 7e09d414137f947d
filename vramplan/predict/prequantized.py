"""Checkpoints that are quantised already: what their config.json says goes before what a scenario asks for."""

from collections.abc import Mapping
from typing import Any

from vramplan.scenario import Load, Scenario


def prequantized_warning(scenario: Scenario) -> str:
    """Where the checkpoint is quantised otherwise than is predicted, what it is; empty for any other."""
    found = scenario.model.config.get("quantization_config")
    if not isinstance(found, Mapping) or scenario.load_from is not Load.CHECKPOINT:
        return ""
    method = found.get("quant_method", "bitsandbytes")
    if method != "bitsandbytes":  # transformers quantizers/auto.py `merge_quantization_configs`
        return f"the checkpoint is quantised by {method}, and bitsandbytes takes 16-bit weights: those are predicted"
    own, asked = _bitsandbytes(found), _words(scenario.quant.type.value, double=scenario.quant.double)
    if own == asked:
        return ""
    return f"the checkpoint is quantised already, as {own}, and transformers keeps that; {asked} is predicted"


def _bitsandbytes(config: Mapping[str, Any]) -> str:
    """`BitsAndBytesConfig`'s keys and defaults."""
    if config.get("load_in_8bit"):
        return _words("int8", double=False)
    return _words(config.get("bnb_4bit_quant_type", "fp4"), double=bool(config.get("bnb_4bit_use_double_quant")))


def _words(kind: object, *, double: bool) -> str:
    return f"quant.type {kind}{' with double quantisation' if double else ''}"
