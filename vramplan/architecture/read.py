"""config.json -> Architecture, by transformers' model_type."""

from collections.abc import Callable, Mapping
from typing import Any

from vramplan.architecture.families import llama
from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture
from vramplan.errors import UnknownArchitecture, nearest

#: Every family that is read without torch.
FAMILIES: dict[str, Callable[[Fields], Architecture]] = {
    "llama": llama.read_llama,
    "mistral": llama.read_mistral,
    "qwen2": llama.read_qwen2,
    "qwen3": llama.read_qwen3,
    "granite": llama.read_granite,
    "olmo2": llama.read_olmo2,
}


def read_architecture(config: Mapping[str, Any], *, name: str) -> Architecture:
    """The model that a config.json describes: every weight once, and the facts about its layers."""
    family = _family(config, name)
    return FAMILIES[family](Fields(config, name))


def _family(config: Mapping[str, Any], name: str) -> str:
    if not isinstance(config, Mapping):
        raise UnknownArchitecture(
            f"the configuration of {name} is a {type(config).__name__}, not a mapping",
            hint="give it a whole config.json",
        )
    family = config.get("model_type")
    if not isinstance(family, str):
        raise UnknownArchitecture(
            f"no 'model_type' in the configuration of {name}", hint=f"known: {', '.join(FAMILIES)}"
        )
    if family not in FAMILIES:
        raise UnknownArchitecture(
            f"unknown architecture '{family}' in the configuration of {name}",
            hint=f"{nearest(family, FAMILIES)}known: {', '.join(FAMILIES)}",
        )
    return family
