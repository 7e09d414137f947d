"""The inventory of an architecture outside the table, read off the model that transformers builds on the meta device.

torch and transformers are imported only when it is called. Weights, shapes and what is quantised are exact; facts about
a layer come from the configuration where it names them, and `facts.assumed` lists the others.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from vramplan.architecture.derived_facts import LayerReader, named
from vramplan.architecture.model import Architecture, Facts, Weight, WeightKind
from vramplan.architecture.own_torch import own_torch
from vramplan.element_types import type_name
from vramplan.errors import UnknownArchitecture, VramplanError, nearest


def installed() -> bool:
    """Whether torch and transformers can be imported; looks without importing them."""
    return find_spec("torch") is not None and find_spec("transformers") is not None


def derive_architecture(config: Mapping[str, Any], *, name: str) -> Architecture:
    """Every weight of the causal language model that transformers builds from the configuration."""
    return _derive(json.dumps(config, sort_keys=True), name)


@lru_cache(maxsize=8)
def _derive(config: str, name: str) -> Architecture:
    with own_torch():
        return _describe(_build(json.loads(config), name), name)


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
    with building(family, name), torch.device("meta"):
        made = CONFIG_MAPPING[family].from_dict(config)
        if getattr(made, "is_encoder_decoder", False):  # transformers would build the decoder alone
            raise UnknownArchitecture(
                f"'{family}' in the configuration of {name} is an encoder with a decoder",
                hint="only decoders that stand alone can be planned",
            )
        return AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)


@contextmanager
def building(family: str, name: str) -> Iterator[None]:
    """Inside, whatever transformers' code makes of a configuration that it cannot use is the configuration's error."""
    try:
        yield
    except VramplanError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnknownArchitecture(
            f"transformers cannot build '{family}' from the configuration of {name}", hint=reason[:200]
        ) from error


def _describe(model: Any, name: str) -> Architecture:
    config, table, head = model.config.get_text_config(), model.get_input_embeddings(), model.get_output_embeddings()
    if table is None or getattr(table, "weight", None) is None or table.weight.dim() != 2:
        raise UnknownArchitecture(
            f"'{model.config.model_type}' has no embedding table", hint="only decoders of tokens can be planned"
        )
    vocab, hidden = table.weight.shape
    prefix, count = _layer_list(model, config)
    buffers = tuple(_buffers(model))
    groups, reader = _grouped(model, prefix, count), LayerReader(config, hidden, rotary_dim=_rotary_dim(buffers))
    variants = _variants(model.get_submodule(prefix))
    layers = list(zip(groups.layers, reader.windows(count), variants, strict=True))
    kinds = list(dict.fromkeys(layers))
    blocks = tuple(replace(reader.block(weights, window), variant=variant) for weights, window, variant in kinds)
    shifts = (w for weights in groups.layers for w in weights if w.kind is WeightKind.NORM and w.path.endswith("bias"))
    return Architecture(
        name=name,
        family=model.config.model_type,
        hidden=hidden,
        vocab=vocab,
        norm="rms" if next(shifts, None) is None else "layer",
        tied=head is not None and head.weight is table.weight,
        layer_prefix=prefix,
        blocks=blocks,
        layers=tuple(kinds.index(layer) for layer in layers),
        before=groups.before,
        after=groups.after,
        buffers=buffers,
        facts=Facts(
            capped_logits=bool(named(config, "final_logit_softcapping")),
            rotary_by_window=any(map(_of_one_kind_of_layer, buffers)),
            derived=True,
            assumed=tuple(sorted(reader.assumed)),
        ),
    )


def _layer_list(model: Any, config: Any) -> tuple[str, int]:
    """Path and length of the decoder's layers: of the module lists as long as the model is deep, the heaviest."""
    from torch import nn

    lists = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    deep = [found for found in lists if len(found[1]) == named(config, "num_hidden_layers")] or lists
    if not deep:
        raise UnknownArchitecture(
            f"'{model.config.model_type}' has no list of layers", hint="only decoders made of layers can be planned"
        )
    path, layers = max(deep, key=lambda found: sum(p.numel() for p in found[1].parameters()))
    return path, len(layers)


def _variants(layers: Any) -> list[int]:
    """A number per layer, the same for layers whose modules have the same switches (rotation, windows).

    Switches are the plain attributes of every module, but for those that merely number the layers.
    """
    settings = [_settings(layer) for layer in layers]
    names = [
        name for name in dict.fromkeys(name for found in settings for name in found) if not _numbers(settings, name)
    ]
    kinds = [tuple(found.get(name) for name in names) for found in settings]
    return [kinds.index(kind) for kind in kinds]


def _settings(layer: Any) -> dict[str, str | int]:
    return {
        f"{path}.{name}".lstrip("."): value
        for path, module in layer.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, str | int) and not name.startswith("_")
    }


def _numbers(settings: list[dict[str, str | int]], name: str) -> bool:
    """Whether an attribute grows from each layer that has it to the next."""
    values = [found[name] for found in settings if name in found]
    return all(type(value) is int for value in values) and sorted(set(map(int, values))) == values


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
            stored = weight.stored.partition(f".{number}.")[2]
            groups.layers[int(number)] += (replace(weight, path=path, stored=stored),)
        elif entered:
            groups.after += (weight,)
        else:
            groups.before += (weight,)
    return groups


def _not_converted(model: Any) -> list[str]:
    """Modules that a quantiser leaves as they are: the head, and the one whose parameter is the last.

    from_pretrained asks before it ties the head, whose own weight then is a parameter as well (modeling_utils.py
    `no_tie_weights`).
    """
    import torch
    from transformers.quantizers.base import HfQuantizer

    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is not None:
        head.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
    skipped: list[str] = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    if weight is not None:
        head.weight = weight
    return skipped


def _parameters(model: Any) -> Iterator[Weight]:
    import torch
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    skipped, stored = _not_converted(model), _stored(model)
    head, kept = model.get_output_embeddings(), model._get_dtype_plan(torch.bfloat16)
    for path, parameter in model.named_parameters():
        owner, _, own_name = path.rpartition(".")
        module = model.get_submodule(owner)
        kind = _kind(module, own_name, parameter, quantised=should_convert_module(owner, skipped))
        if module is head and own_name == "weight":
            kind = WeightKind.HEAD
        plain = kind is not WeightKind.LINEAR
        yield Weight(
            path,
            kind,
            tuple(parameter.shape),
            transposed=isinstance(module, Conv1D) and own_name == "weight",
            # core_model_loading.py: parts of names that stay fp32 whatever is asked for; a quantised matrix is packed
            dtype="float32" if plain and any(part in path for part in kept) else _other_dtype(parameter),
            stored=stored.get(path, ""),
        )


def _stored(model: Any) -> dict[str, str]:
    """`Weight.stored` by path, where it is another: the names that `save_pretrained` gives back
    (core_model_loading.py `revert_weight_conversion`)."""
    from transformers.core_model_loading import revert_weight_conversion

    parameters = dict(model.named_parameters())
    if revert_weight_conversion(model, parameters).keys() == parameters.keys():
        return {}
    names = {path: min(revert_weight_conversion(model, {path: one}), default=path) for path, one in parameters.items()}
    return {path: str(name) for path, name in names.items() if name != path}


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
    if isinstance(module, nn.Conv1d):
        return WeightKind.BIAS if own_name == "bias" else WeightKind.OTHER
    if "Expert" in cls.__name__ or (parameter.dim() == 3 and len(parameter) > 1):  # of one, as a vision tower's probe
        return WeightKind.EXPERTS
    if "Router" in cls.__name__ or "Gate" in cls.__name__:
        return WeightKind.BIAS if own_name == "bias" else WeightKind.ROUTER
    return WeightKind.BIAS if own_name == "bias" else WeightKind.OTHER


def _buffers(model: Any) -> Iterator[Weight]:
    for path, buffer in model.named_buffers():
        yield Weight(path, WeightKind.BUFFER, tuple(buffer.shape), dtype=_other_dtype(buffer))


def _other_dtype(tensor: Any) -> str:
    """The tensor's element type when it is not the one that the model was built in."""
    import torch

    return "" if tensor.dtype is torch.bfloat16 else type_name(tensor.dtype)


def _of_one_kind_of_layer(buffer: Weight) -> bool:
    """Whether it holds rotary frequencies of one of `layer_types` alone: `sliding_attention_original_inv_freq`."""
    return buffer.path.endswith("_original_inv_freq") and "attention" in buffer.path


def _rotary_dim(buffers: tuple[Weight, ...]) -> int:
    """Twice the number of rotary frequencies; 0 without any."""
    return next((2 * w.numel for w in buffers if w.path.endswith("inv_freq")), 0)
