"""Modules that are trained whole beside the adapters: peft's `modules_to_save`.

peft 0.21.2 utils/other.py `ModulesToSaveWrapper`: the module stays where it is, frozen, and a deep copy of it is what
runs and is trained.
"""

from dataclasses import replace

from vramplan.architecture import HEAD, Architecture, Weight, WeightKind
from vramplan.errors import UsageError, nearest
from vramplan.predict.base import prepared_dtype
from vramplan.predict.quantization import is_quantized
from vramplan.scenario import Lora, Method, Scenario


def is_copied(weight: Weight, lora: Lora) -> bool:
    """Whether the module of `weight` gets a copy: `_set_trainable` takes every module whose path ends in a name."""
    return weight.owner.endswith(lora.modules_to_save)


def is_trained(weight: Weight, scenario: Scenario) -> bool:
    """Whether the weight itself, or the copy that runs in its place, is trained."""
    if scenario.method is Method.FULL:
        return True
    return scenario.method.adapts and is_copied(weight, scenario.lora)


def trained_dtype(weight: Weight, scenario: Scenario) -> str:
    """Element type of a weight that is trained; what is read into a copy for merging is cast, the copy is not."""
    cast = scenario.lora.modules_dtype if scenario.method.adapts and scenario.method is not Method.MERGE else None
    return prepared_dtype(weight, scenario) if cast is None or weight.kind is WeightKind.BUFFER else cast


def copy_label(weight: Weight) -> str:
    """The copy's path in the model, without the adapter's name."""
    owner, _, name = weight.path.rpartition(".")
    return f"{owner}.modules_to_save.{name}"


def training_architecture(scenario: Scenario) -> Architecture:
    """The model as it runs: where the table or the tied head is a copy, they share nothing any longer."""
    architecture = scenario.architecture
    apart = head_apart(scenario)
    return replace(architecture, tied=False, after=(*architecture.after, *apart)) if apart else architecture


def head_apart(scenario: Scenario) -> tuple[Weight, ...]:
    """The head that a tied model has for itself: once one of both is a copy, or the head has an adapter."""
    architecture, lora = scenario.architecture, scenario.lora
    if not (architecture.tied and scenario.method.adapts and (lora.modules_to_save or HEAD in lora.targets)):
        return ()
    table = architecture.table
    head = Weight(f"{HEAD}.weight", WeightKind.HEAD, table.shape, dtype=table.dtype)
    apart = HEAD in lora.targets or is_copied(head, lora) or is_copied(table, lora)
    return (head,) if apart else ()


def has_module(architecture: Architecture, name: str) -> bool:
    """Whether a module's path ends in `name`."""
    return any(owner.endswith(name) for owner in _owners(architecture))


def check_saved(scenario: Scenario) -> None:
    """Raise a UsageError for a name that no module ends in, or whose module cannot be trained whole."""
    names = scenario.lora.modules_to_save if scenario.method.adapts else ()
    if not names:
        return
    architecture = scenario.architecture
    weights = [weight for weight, _ in architecture.counted]
    able = [weight.module for weight in weights if not _hindrance(weight, scenario)]
    known = list(dict.fromkeys((*able, *[HEAD] * architecture.tied)))
    for name in names:
        reasons = [_hindrance(weight, scenario) for weight in weights if weight.owner.endswith(name)]
        if any(parent.endswith(name) for owner in _owners(architecture) for parent in _parents(owner)):
            reasons = ["it holds other modules"]
        elif not has_module(architecture, name):
            reasons = ["no such module"]
        if any(reasons):
            near = nearest(name, known) if name not in known else ""
            raise UsageError(
                f"lora.modules_to_save '{name}' of {architecture.name}: {next(filter(None, reasons))}",
                hint=f"{near}available: {', '.join(known)}",
            )


def _owners(architecture: Architecture) -> set[str]:
    """Paths of the modules that have weights, relative to their layer where they are in one."""
    return {weight.owner for weight, _ in architecture.counted} | ({HEAD} if architecture.tied else set())


def _parents(owner: str) -> list[str]:
    """`self_attn` of `self_attn.q_proj`."""
    parts = owner.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _hindrance(weight: Weight, scenario: Scenario) -> str:
    """Why the weight's module cannot be trained whole; empty where it can."""
    if weight.kind is WeightKind.EXPERTS:
        return "experts trained whole are not modelled"
    return "it is quantised, and integers have no gradients" if is_quantized(weight, scenario.quant) else ""
