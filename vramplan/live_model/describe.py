"""A model object and training arguments as a scenario, with a warning for everything that a scenario cannot say."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vramplan.allocator_settings import expandable_segments
from vramplan.errors import UsageError, VramplanError
from vramplan.ledger import Component, Phase
from vramplan.live_model.adapters import (
    active_numel,
    check_method,
    copied_reference,
    is_peft,
    lora_of,
    planned_warnings,
    target_choices,
)
from vramplan.live_model.arguments import (
    batch_of,
    check_arguments,
    checkpointing_of,
    has_fused_head,
    keys_of,
    seq_of,
    warnings_of,
)
from vramplan.live_model.base import (
    attention_of,
    check_dtype,
    check_head,
    compute_dtype_of,
    config_of,
    dtypes_of,
    quant_of,
    quantized_layers,
    rewritten,
)
from vramplan.measure.environment import installed_torch
from vramplan.predict.adapters import trainables
from vramplan.record import Prediction
from vramplan.scenario import ALL_LINEAR, Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.stacks import STACKS
from vramplan.units import human

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, TrainingArguments

#: By how much the model's own tensors may differ from the prediction before it is said: their share of the prediction.
_NOTABLE = 0.001


@dataclass(frozen=True, slots=True)
class Described:
    """A scenario, and what of the model and the arguments it does not say."""

    scenario: Scenario
    warnings: tuple[str, ...]


def describe(
    model: "PreTrainedModel | PeftModel",
    args: "TrainingArguments",
    *,
    batch: int | None = None,
    seq: int | None = None,
    peft_config: "LoraConfig | None" = None,
    gpu: str = "",
) -> Described:
    """The scenario of a training run. `peft_config` is what a trainer will attach to a model without adapters.

    Raises a UsageError for what cannot be predicted at all: another quantisation than bitsandbytes', another peft
    method than LoRA, an optimizer whose states are not known, a quantised model without adapters.
    """
    from vramplan.training.names import causal_model  # torch, which is there with the model

    check_arguments(args)
    base = causal_model(model)
    common, warnings = _without_adapters(base, args, batch=batch, seq=seq, gpu=gpu)
    quantized, loop = common["quant"]["type"] != "none", common["stack"]["base"]
    method, lora, told = _method(model, peft_config, quantized=quantized)
    warnings += told
    if loop == "trl-dpo" and is_peft(model) and not has_fused_head(base):
        warnings.append(copied_reference(model))
    if STACKS[loop].trl and quantized:
        for key in ("dtype", "modules_dtype"):
            lora.pop(key, None)  # whatever it is now, the trainer casts
    scenario, unmatched = _with_targets(model, {**common, "method": method}, lora, peft_config)
    return Described(scenario, (*warnings, *unmatched))


def _without_adapters(
    base: Any, args: "TrainingArguments", *, batch: int | None, seq: int | None, gpu: str
) -> tuple[dict[str, Any], list[str]]:
    """The scenario's keys but those of the method and the adapters, and warnings."""
    config = config_of(base)
    check_head(base)
    keys = keys_of(args, base)
    quant = quant_of(base)
    dtype, upcast, mixed = dtypes_of(base)
    attention, unknown_attention = attention_of(base)
    stack = {**keys["stack"], "upcast": upcast}
    found = {
        **keys,
        "model": config,
        "quant": quant,
        "batch": batch_of(args, batch),
        "seq": seq_of(args, seq),
        "dtype": check_dtype(dtype),
        "compute_dtype": check_dtype(compute_dtype_of(base, stack["autocast"])),
        "checkpointing": checkpointing_of(args, base),
        "attention": attention,
        "stack": stack,
        "load": "checkpoint" if quant.get("block_size", 64) == 64 else "random",
        "gpu": gpu or _own_card(),
        "torch": installed_torch(),
        "expandable_segments": expandable_segments(os.environ),
    }
    return found, [*warnings_of(args, base, attention), *rewritten(base), *mixed, *unknown_attention]


def _own_card() -> str:
    """The catalogue's name of the card that this process would take; empty without one."""
    import torch

    from vramplan.catalog.gpus import gpu_of_driver

    return gpu_of_driver(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def _method(model: Any, peft_config: Any, *, quantized: bool) -> tuple[str, dict[str, Any], list[str]]:
    """The method, the adapters' section without targets, and warnings."""
    if is_peft(model):
        lora, warnings = lora_of(model)
        return "qlora" if quantized else "lora", lora, warnings
    if peft_config is not None:
        check_method(peft_config)
        # peft 0.21 `autocast_adapter_dtype`: adapters are made in the base's type, 16-bit ones cast to fp32
        lora = {"rank": int(peft_config.r), "dropout": float(peft_config.lora_dropout), "dtype": "float32"}
        lora |= {"dora": True} if peft_config.use_dora else {}
        lora["modules_to_save"] = sorted(peft_config.modules_to_save or ())
        return "qlora" if quantized else "lora", lora, planned_warnings(peft_config)
    if quantized:
        raise UsageError(
            "the model is quantised and has no adapters: nothing in it can be trained",
            hint="attach adapters first (peft.get_peft_model), or give peft_config",
        )
    frozen = [p for p in model.parameters() if not p.requires_grad]
    if not frozen:
        return "full", {}, []
    count = sum(p.numel() for p in frozen)
    return "full", {}, [f"{count:,} parameters are frozen: predicted as if all were trained, which is an upper bound"]


def _with_targets(
    model: Any, keys: Mapping[str, Any], lora: Mapping[str, Any], peft_config: Any
) -> tuple[Scenario, list[str]]:
    """The scenario, its adapters where the model has them, or is to get them; a warning where that cannot be said."""
    if not lora:
        return scenario_from_mapping(keys, where="the model"), []
    if is_peft(model):
        choices = ({**keys, "lora": {**lora, "targets": targets}} for targets in target_choices(model))
        return _with_as_many(active_numel(model), choices)
    targets = _planned_targets(peft_config)
    return scenario_from_mapping({**keys, "lora": {**lora, "targets": targets}}, where="the model"), []


def _planned_targets(peft_config: Any) -> str | list[str]:
    """The modules to which a trainer will attach adapters, when the configuration names them."""
    given = peft_config.target_modules
    if not given or (isinstance(given, str) and given != ALL_LINEAR):
        raise UsageError(
            f"target_modules={given!r} says nothing before peft has resolved it",
            hint="list the modules, use 'all-linear', or attach the adapters first (peft.get_peft_model)",
        )
    return given if isinstance(given, str) else sorted(given)


def _with_as_many(own: int, choices: Iterable[Mapping[str, Any]]) -> tuple[Scenario, list[str]]:
    """The first of the scenarios whose adapters have `own` parameters; without one the nearest, and a warning."""
    found: dict[int, Scenario] = {}
    refusals: list[VramplanError] = []
    for keys in choices:
        try:
            scenario = scenario_from_mapping(keys, where="the model")
            numel = sum(tensor.numel * tensor.times for tensor in trainables(scenario))
        except VramplanError as refusal:
            refusals.append(refusal)
            continue
        if numel == own:
            return scenario, []
        found.setdefault(numel, scenario)
    if not found:
        raise refusals[-1]
    numel = min(found, key=lambda numel: abs(numel - own))
    warning = f"the adapter has {own:,} parameters, and the prediction {numel:,}: some targets cannot be said"
    return found[numel], [warning]


def check_against_model(prediction: Prediction, model: Any) -> tuple[str, ...]:
    """Warnings where the model's own tensors take other bytes than predicted: custom modules, resized embeddings."""
    own = static_bytes(model)
    phase = next(p for p in prediction.ledger.phases if p is not Phase.LOAD)
    warnings = []
    for component, size in own.items():
        predicted = prediction.ledger.bytes(phase, component)
        if abs(predicted - size) > _NOTABLE * max(predicted, size):
            warnings.append(
                f"{component.value}: the model's own tensors take {human(size)}, and {human(predicted)} are predicted:"
                " parts of the model that its configuration does not tell of"
            )
    return tuple(warnings)


def static_bytes(model: Any) -> dict[Component, int]:
    """Bytes of the model's own tensors by component; nothing for one on the meta device that is yet to be packed.

    A 4-bit layer's bias is counted as the first forward leaves it (bitsandbytes 0.50 nn/modules.py Linear4bit.forward).
    """
    from vramplan.training.names import causal_model, name_adapters, name_base

    base = causal_model(model)
    tensors = _Sizes()
    name_base(base, tensors)
    name_adapters(model, tensors)
    unpacked = any(p.is_meta for p in base.parameters()) and quant_of(base)["type"] != "none"
    if unpacked:
        return {}
    found = tensors.bytes()
    for layer in quantized_layers(base):
        if layer.bias is not None and getattr(layer, "compute_dtype", None) is not None:
            found[Component.UNQUANTIZED] -= layer.bias.numel() * (
                layer.bias.element_size() - layer.compute_dtype.itemsize
            )
    return found


class _Sizes:
    """A meter that adds up what it is told, each tensor once: a tied table is one, under two names."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Component, int]] = {}

    def enter(self, phase: Phase) -> None:
        """Nothing: there are no phases."""

    def name(self, tensor: Any, component: Component, label: str) -> None:
        """The last name of a tensor wins."""
        self._found[id(tensor)] = (component, tensor.numel() * tensor.element_size())

    def bytes(self) -> dict[Component, int]:
        total: dict[Component, int] = {}
        for component, size in self._found.values():
            total[component] = total.get(component, 0) + size
        return {c: total[c] for c in (Component.WEIGHTS, Component.UNQUANTIZED, Component.ADAPTERS) if c in total}
