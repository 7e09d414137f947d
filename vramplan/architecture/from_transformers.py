"""The inventory of an architecture outside the table, read off the model that transformers builds on the meta device.

The only file here that imports torch and transformers, and only when it is called. Weights, shapes and what is
quantised are exact; facts about a layer come from the configuration where it names them, and `facts['assumed']` lists
the others.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from math import prod
from typing import Any

from vramplan.architecture.model import Architecture, Attention, Block, Experts, Facts, Mlp, Weight, WeightKind
from vramplan.errors import UnknownArchitecture, nearest

#: Under which names configuration classes of transformers 5.17.0 keep what a layer's facts need.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k"),
    "experts_width": ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size"),
    "activation": ("hidden_act", "hidden_activation", "activation_function", "activation"),
}


def installed() -> bool:
    """Whether torch and transformers can be imported; looks without importing them."""
    return find_spec("torch") is not None and find_spec("transformers") is not None


def derive_architecture(config: Mapping[str, Any], *, name: str) -> Architecture:
    """Every weight of the causal language model that transformers builds from the configuration."""
    return _derive(json.dumps(config, sort_keys=True), name)


@lru_cache(maxsize=8)
def _derive(config: str, name: str) -> Architecture:
    model = _build(json.loads(config), name)
    return _describe(model, name)


def _build(config: dict[str, Any], name: str) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    family = config["model_type"]
    if family not in CONFIG_MAPPING:
        raise UnknownArchitecture(
            f"unknown architecture '{family}' in the configuration of {name}",
            hint=f"{nearest(family, CONFIG_MAPPING)}the installed transformers does not know it either",
        )
    if CONFIG_MAPPING[family] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnknownArchitecture(
            f"'{family}' in the configuration of {name} is not a causal language model",
            hint="only models that AutoModelForCausalLM builds can be planned",
        )
    config.pop("quantization_config", None)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family].from_dict(config), dtype=torch.bfloat16)
    except Exception as error:  # whatever the model's own code makes of a configuration it cannot use
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnknownArchitecture(
            f"transformers cannot build '{family}' from the configuration of {name}", hint=reason
        ) from error


def _describe(model: Any, name: str) -> Architecture:
    config = model.config.get_text_config()
    prefix, count = _layer_list(model, config)
    groups, head = _grouped(model, prefix, count), model.get_output_embeddings()
    reader = _Reader(config)
    kinds = list(dict.fromkeys(groups.layers))
    blocks = tuple(reader.block(weights) for weights in kinds)
    facts: Facts = {"derived": True}
    if reader.assumed:
        facts["assumed"] = ", ".join(sorted(reader.assumed))
    table = model.get_input_embeddings()
    return Architecture(
        name=name,
        family=model.config.model_type,
        hidden=config.hidden_size,
        vocab=config.vocab_size,
        norm="layer" if any(w.path.endswith("bias") for k in kinds for w in k if w.kind is WeightKind.NORM) else "rms",
        tied=head is not None and table is not None and head.weight is table.weight,
        layer_prefix=prefix,
        blocks=blocks,
        layers=tuple(kinds.index(weights) for weights in groups.layers),
        before=groups.before,
        after=groups.after,
        buffers=tuple(_buffers(model)),
        facts=facts,
    )


def _layer_list(model: Any, config: Any) -> tuple[str, int]:
    """Path and length of the decoder's layers: of the module lists as long as the model is deep, the heaviest."""
    from torch import nn

    lists = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    deep = [found for found in lists if len(found[1]) == config.num_hidden_layers] or lists
    if not deep:
        raise UnknownArchitecture(
            f"'{model.config.model_type}' has no list of layers", hint="only decoders made of layers can be planned"
        )
    path, layers = max(deep, key=lambda found: sum(p.numel() for p in found[1].parameters()))
    return path, len(layers)


class _Groups:
    """The model's parameters in its order: before the layers, per layer with relative paths, after."""

    def __init__(self, count: int) -> None:
        self.before: tuple[Weight, ...] = ()
        self.after: tuple[Weight, ...] = ()
        self.layers: list[tuple[Weight, ...]] = [()] * count


def _grouped(model: Any, prefix: str, count: int) -> _Groups:
    groups, entered = _Groups(count), False
    for weight in _parameters(model):
        if weight.path.startswith(f"{prefix}."):
            entered = True
            number, _, path = weight.path.removeprefix(f"{prefix}.").partition(".")
            relative = Weight(path, weight.kind, weight.shape, weight.module, weight.transposed, weight.dtype)
            groups.layers[int(number)] += (relative,)
        elif entered:
            groups.after += (weight,)
        else:
            groups.before += (weight,)
    return groups


def _parameters(model: Any) -> Iterator[Weight]:
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    skipped = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    head = model.get_output_embeddings()
    for path, parameter in model.named_parameters():
        owner, _, own_name = path.rpartition(".")
        module = model.get_submodule(owner)
        kind = _kind(module, own_name, parameter, quantised=should_convert_module(owner, skipped))
        if module is head and own_name == "weight":
            kind = WeightKind.HEAD
        yield Weight(
            path,
            kind,
            tuple(parameter.shape),
            owner.rpartition(".")[2],
            transposed=isinstance(module, Conv1D) and own_name == "weight",
            dtype=_other_dtype(parameter),
        )


def _kind(module: Any, own_name: str, parameter: Any, *, quantised: bool) -> WeightKind:
    """By the module's class, as transformers (5.17.0 integrations/bitsandbytes.py) and peft decide."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    cls = type(module)
    if isinstance(module, nn.Linear | Conv1D):
        if own_name != "weight":
            return WeightKind.BIAS
        replaced = quantised and (cls is nn.Linear or isinstance(module, Conv1D))
        return WeightKind.LINEAR if replaced else WeightKind.SUBLINEAR
    if isinstance(module, nn.Embedding):
        return WeightKind.EMBEDDING
    if "Norm" in cls.__name__:
        return WeightKind.NORM
    if "Expert" in cls.__name__ or parameter.dim() == 3:
        return WeightKind.EXPERTS
    if "Router" in cls.__name__ or "Gate" in cls.__name__:
        return WeightKind.BIAS if own_name == "bias" else WeightKind.ROUTER
    return WeightKind.BIAS if own_name == "bias" else WeightKind.OTHER


def _buffers(model: Any) -> Iterator[Weight]:
    for path, buffer in model.named_buffers():
        module = path.rpartition(".")[0].rpartition(".")[2]
        yield Weight(path, WeightKind.BUFFER, tuple(buffer.shape), module, dtype=_other_dtype(buffer))


def _other_dtype(tensor: Any) -> str:
    """The tensor's element type when it is not the one that the model was built in."""
    import torch

    return "" if tensor.dtype is torch.bfloat16 else str(tensor.dtype).removeprefix("torch.")


class _Reader:
    """A layer's facts out of a configuration object; remembers which ones it had to assume."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.assumed: set[str] = set()

    def size(self, fact: str, otherwise: int) -> int:
        """A size by any of its spellings, else `otherwise`, which is then noted as assumed."""
        values = (getattr(self.config, key, None) for key in SPELLINGS[fact])
        found = next((value for value in values if type(value) is int and value > 0), None)
        if found is None:
            self.assumed.add(fact)
            return otherwise
        return found

    def block(self, weights: tuple[Weight, ...]) -> Block:
        """The layer with these weights."""
        experts = next((w for w in weights if w.kind is WeightKind.EXPERTS and len(w.shape) == 3), None)
        if experts is None:
            return Block(weights, self.attention(weights), self.mlp(weights), None)
        mixture = Experts(
            count=experts.shape[0],
            per_token=self.size("per_token", 1),
            intermediate=self.size("experts_width", prod(experts.shape[1:]) // self.config.hidden_size),
            activation=self.activation(),
        )
        return Block(weights, self.attention(weights), None, mixture)

    def attention(self, weights: tuple[Weight, ...]) -> Attention:
        """Ordinary attention with the configuration's heads; everything special about it stays unknown."""
        heads = self.size("heads", 1)
        head_dim = getattr(self.config, "head_dim", None) or self.size("head_dim", self.config.hidden_size // heads)
        kv_heads = getattr(self.config, "num_key_value_heads", None) or self.size("kv_heads", heads)
        rotary = head_dim if getattr(self.config, "rope_parameters", None) else 0
        modules = {weight.module for weight in weights}
        window = getattr(self.config, "sliding_window", None) or 0
        bias = any(w.kind is WeightKind.BIAS and w.module in ("q_proj", "qkv_proj", "query_key_value") for w in weights)
        return Attention(
            heads,
            kv_heads,
            head_dim,
            head_dim,
            rotary,
            window=window if not getattr(self.config, "layer_types", None) else 0,
            fused_qkv=not modules & {"q_proj", "query", "wq", "q_a_proj"},
            bias=bias,
        )

    def mlp(self, weights: tuple[Weight, ...]) -> Mlp:
        """A dense feed-forward block; gated when one of its projections is called so."""
        modules = {weight.module for weight in weights}
        return Mlp(
            self.size("intermediate", 4 * self.config.hidden_size),
            self.activation(),
            gated=any("gate" in module for module in modules),
            fused_gate="gate_up_proj" in modules,
        )

    def activation(self) -> str:
        """ACT2FN's name of the activation."""
        values = (getattr(self.config, key, None) for key in SPELLINGS["activation"])
        found = next((value for value in values if isinstance(value, str)), None)
        if found is None:
            self.assumed.add("activation")
        return found or "silu"
