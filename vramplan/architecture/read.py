"""config.json -> Architecture, by transformers' model_type."""

from collections.abc import Callable, Mapping
from typing import Any

from vramplan.architecture.families import falcon, gemma, gpt, llama, moe, opt, phi
from vramplan.architecture.fields import Fields
from vramplan.architecture.model import Architecture
from vramplan.errors import UnknownArchitecture, nearest

#: Every family that is read without torch.
FAMILIES: Mapping[str, Callable[[Fields], Architecture]] = {
    "llama": llama.read_llama,
    "mistral": llama.read_mistral,
    "qwen2": llama.read_qwen2,
    "qwen3": llama.read_qwen3,
    "granite": llama.read_granite,
    "olmo2": llama.read_olmo2,
    "gemma": gemma.read_gemma,
    "gemma2": gemma.read_gemma2,
    "gemma3_text": gemma.read_gemma3,
    "phi": phi.read_phi,
    "phi3": phi.read_phi3,
    "gpt2": gpt.read_gpt2,
    "gpt_neox": gpt.read_gpt_neox,
    "starcoder2": gpt.read_starcoder2,
    "falcon": falcon.read_falcon,
    "opt": opt.read_opt,
    "mixtral": moe.read_mixtral,
    "qwen3_moe": moe.read_qwen3_moe,
    "gpt_oss": moe.read_gpt_oss,
    "deepseek_v2": moe.read_deepseek_v2,
}

_MODEL_TYPE = "every config.json that transformers writes has one, such as 'llama': give the whole of it"
#: How classes of transformers are called whose heads are no vocabulary's.
_OTHER_HEADS = ("Classification", "QuestionAnswering", "MaskedLM", "MultipleChoice", "RewardModel")


def read_architecture(config: Mapping[str, Any], *, name: str) -> Architecture:
    """The model that a config.json describes: every weight once, and the facts about its layers.

    A model_type outside the table is read off the model that transformers builds, when it is installed.
    """
    family = _family(config, name)
    _check_head(config, name)
    if family in FAMILIES:
        return FAMILIES[family](Fields(config, name))
    from vramplan.architecture.from_transformers import derive_architecture, installed

    if installed():
        return derive_architecture(config, name=name)
    raise UnknownArchitecture(
        f"unknown architecture '{family}' in the configuration of {name}",
        hint=f"{nearest(family, FAMILIES)}known: {', '.join(FAMILIES)}; install vramplan[measure] to ask transformers",
    )


def _check_head(config: Mapping[str, Any], name: str) -> None:
    """UnknownArchitecture where `architectures` names a model that makes no logits over the vocabulary."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    if isinstance(first, str) and first.endswith(_OTHER_HEADS):
        raise UnknownArchitecture(
            f"the configuration of {name} is a {first}'s, which is no causal language model",
            hint="classifiers and reward models are not predicted; for a causal model, remove 'architectures'",
        )


def _family(config: Mapping[str, Any], name: str) -> str:
    if not isinstance(config, Mapping):
        kind = type(config).__name__
        raise UnknownArchitecture(
            f"the configuration of {name} is a {kind}, not a mapping", hint="give it a whole config.json"
        )
    family = config.get("model_type")
    if family is None:
        raise UnknownArchitecture(f"no 'model_type' in the configuration of {name}", hint=_MODEL_TYPE)
    if not isinstance(family, str):
        raise UnknownArchitecture(f"'model_type' is {family!r} in the configuration of {name}", hint=_MODEL_TYPE)
    return family
