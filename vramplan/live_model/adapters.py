"""What peft attached: read off its configuration and off the adapters' own parameters."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vramplan.element_types import type_name
from vramplan.errors import UsageError
from vramplan.importers.vocabulary.peft import PEFT
from vramplan.live_model.base import setting
from vramplan.scenario import ALL_LINEAR
from vramplan.units import human

if TYPE_CHECKING:
    from torch import Tensor

#: Options of peft that are warned of where a file says them, and not here: they decide where adapters are and of which
#: rank, which is read off the model's own parameters.
_COUNTED = ("exclude_modules", "rank_pattern", "target_parameters")


def is_peft(model: Any) -> bool:
    """Whether the model is peft's wrapper, or has adapters that transformers' own integration attached."""
    return bool(getattr(model, "peft_config", None))


def lora_of(model: Any) -> tuple[dict[str, Any], list[str]]:
    """The scenario's `lora` section without targets, and what it cannot say; UsageError for other methods than LoRA."""
    configs = dict(model.peft_config)
    name = _active(model, configs)
    config = configs[name]
    check_method(config)
    warnings = list(config_warnings(config))
    if len(configs) > 1:
        warnings.append(
            f"the model has {len(configs)} adapters: '{name}' is predicted, what {_others(configs, name)} hold is not"
        )
    dtypes = _dtypes(p for part in ("lora_A", "lora_B", "lora_embedding") for p in _within(model, name, part))
    if not dtypes:
        raise UsageError(f"adapter '{name}' has no parameters", hint="attach it with peft.get_peft_model")
    if len(dtypes) > 1:
        warnings.append(f"adapters of several element types ({', '.join(dtypes)}): predicted as {dtypes[-1]}")
    keys: dict[str, Any] = {"rank": int(config.r), "dropout": float(config.lora_dropout), "dtype": dtypes[-1]}
    if config.use_dora:
        keys["dora"] = True
    copies, originals = _dtypes(_within(model, name, "modules_to_save")), _dtypes(_originals(model))
    if copies:
        keys["modules_to_save"] = sorted(config.modules_to_save)
    if copies != originals:
        keys["modules_dtype"] = copies[-1]
    return keys, warnings


def planned_warnings(config: Any) -> list[str]:
    """The same for a configuration that a trainer has yet to use: nothing can be counted yet."""
    found = list(config_warnings(config))
    if config.rank_pattern:
        found.append(f"LoraConfig.rank_pattern={config.rank_pattern!r} is not modelled: rank {config.r} is predicted")
    return found


def copied_reference(model: Any) -> str:
    """What TRL's DPOTrainer, not made yet, will add to a model with adapters (trl 1.16 trainer/dpo_trainer.py)."""
    size = human(active_numel(model) * 4)  # peft 0.21 `add_adapter`: in fp32
    return (
        f"DPOTrainer takes a copy of these adapters as its reference, {size} that are not in the prediction; it makes"
        " none for a model without adapters and a peft_config"
    )


def check_method(config: Any) -> None:
    """UsageError for another method than LoRA."""
    kind = setting(config.peft_type)
    if kind != "LORA":
        raise UsageError(f"peft method {kind} cannot be predicted", hint="only LoRA's memory is modelled")


def config_warnings(config: Any) -> Iterator[str]:
    """Options of the configuration that the prediction leaves out.

    Those that are counted are not among them: peft itself writes a `rank_pattern` for fused experts.
    """
    for option, what in PEFT.unmodelled.items():
        value = getattr(config, option, None)
        off = value is None or value is False or value == "none"  # 0 is a layer
        if option not in _COUNTED and not off:
            yield f"LoraConfig.{option}={value!r} is not modelled: it {what}"


def _active(model: Any, configs: dict[str, Any]) -> str:
    active = getattr(model, "active_adapter", None)
    active = active() if callable(active) else active  # transformers' own integration has a method
    if isinstance(active, list):
        active = active[0] if active else None
    return active if active in configs else next(iter(configs))


def _others(configs: dict[str, Any], name: str) -> str:
    return ", ".join(f"'{other}'" for other in configs if other != name)


def _within(model: Any, name: str, container: str) -> "list[Tensor]":
    """What one adapter has in peft's ModuleDicts: called lora_A, lora_B, ..., or modules_to_save."""
    return [
        parameter
        for path, parameter in model.named_parameters()
        if any(part.startswith(container) and key == name for part, key in pairwise(path.split(".")))
    ]


def _originals(model: Any) -> "list[Tensor]":
    """The modules that copies are trained of."""
    return [parameter for path, parameter in model.named_parameters() if ".original_module." in path]


def _dtypes(parameters: "Iterable[Tensor]") -> list[str]:
    return sorted({type_name(parameter.dtype) for parameter in parameters})


def target_choices(model: Any) -> list[list[str] | str]:
    """Spellings of the targets to try: `all-linear` first, then the names of the modules that have adapters."""
    wrapped = [path for path, module in model.named_modules() if hasattr(module, "lora_A")]
    names = sorted({path.rpartition(".")[2] for path in wrapped if not path.endswith("experts")})
    config = model.peft_config[_active(model, dict(model.peft_config))]
    given = config.target_modules
    listed = sorted(given) if isinstance(given, set | list | tuple) else []
    return [ALL_LINEAR, *([names] if names else []), *([listed] if listed and listed != names else [])]


def active_numel(model: Any) -> int:
    """Elements of the active adapter, copies of whole modules among them."""
    name = _active(model, dict(model.peft_config))
    return sum(p.numel() for part in ("lora_", "modules_to_save") for p in _within(model, name, part))
