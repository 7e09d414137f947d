"""How a checkpoint is quantised already, by its config.json: that goes before what is asked for."""

import re
from collections.abc import Mapping
from typing import Any

from vramplan.scenario import Quant, QuantType

#: gpt-oss's experts, made 16-bit where the kernels are missing (transformers 5.17 quantizers/quantizer_mxfp4.py).
_MADE_16_BIT = "mxfp4"


def quant_method(config: Mapping[str, Any]) -> str:
    """`bitsandbytes`, `awq`, `gptq`, ...; empty for a checkpoint of plain weights."""
    found = config.get("quantization_config")
    return str(found.get("quant_method", "bitsandbytes")) if isinstance(found, Mapping) else ""


def other_quant_method(config: Mapping[str, Any]) -> str:
    """The method, where its weights are none that a scenario describes; else empty."""
    method = quant_method(config)
    return "" if method in ("bitsandbytes", _MADE_16_BIT) else method


def stored_quant(config: Mapping[str, Any]) -> Quant | None:
    """What bitsandbytes made of the checkpoint, by `BitsAndBytesConfig`'s keys and defaults (transformers 5.17
    utils/quantization_config.py); None where it made nothing."""
    if quant_method(config) != "bitsandbytes":
        return None
    found = config["quantization_config"]
    if found.get("load_in_8bit"):
        return Quant(type=QuantType.INT8, double=False)
    kind = QuantType.NF4 if found.get("bnb_4bit_quant_type") == "nf4" else QuantType.FP4
    double = bool(found.get("bnb_4bit_use_double_quant"))
    return Quant(type=kind, double=double)


def in_words(quant: Quant) -> str:
    """As a scenario has it, on one line."""
    return f"quant.type {quant.type.value}{' with double quantisation' if quant.double else ''}"


def named_quant(repo: str) -> Mapping[str, Any]:
    """`quantization_config`, as config.json has it, of a checkpoint whose name says that bitsandbytes made 4 bits of it
    (`...-bnb-4bit`), which are nf4 with double quantisation in all that Unsloth publishes; else nothing."""
    words = set(re.split("[-_]", repo.lower()))
    if not {"bnb", "4bit"} <= words:
        return {}
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    return {"quantization_config": {"quant_method": "bitsandbytes", **four}}
