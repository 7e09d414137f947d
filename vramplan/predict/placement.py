"""Whether a model that is loaded with `device_map="auto"` stays whole on its card, and what follows when it doesn't."""

from vramplan.predict.device_map import DeviceMap, Place, auto_device_map
from vramplan.predict.overheads import budget_of, context_of
from vramplan.scenario import Load, Method, QuantType, Scenario
from vramplan.units import human

#: transformers 5.17 quantizer_bnb_4bit.py and quantizer_bnb_8bit.py validate_environment: how the ValueError begins.
REFUSED = "Some modules are dispatched on the CPU or the disk"
#: accelerate 1.15 accelerator.py prepare_model: a quantised model that is all on the host, trained on a GPU.
ELSEWHERE = "on a different device than the one you're training on"
#: accelerate 1.15 big_modeling.py dispatch_model: what `model.to(device)` raises, which the Trainer calls.
NOT_MOVED = "You can't move a model that has some modules offloaded to cpu or disk"


def placement(
    scenario: Scenario, *, budget: int | None = None, reserve: int = 0, host: int | None = None
) -> DeviceMap | None:
    """Where the scenario's modules go on its card, or within `budget` (context included); None without either.

    What is free when the model is loaded is the budget less the context.
    """
    budget = budget_of(scenario, budget, reserve)
    if budget is None:
        return None
    return auto_device_map(scenario, free=max(budget - context_of(scenario), 0), host=host)


def placement_warning(scenario: Scenario, *, budget: int | None = None, reserve: int = 0) -> str:
    """One sentence when `device_map="auto"` would not leave the model whole on the card; else empty.

    Models that are built layer by layer (`load: random`) and merges are not loaded that way.
    """
    if scenario.load_from is not Load.CHECKPOINT or scenario.method is Method.MERGE:
        return ""
    found = placement(scenario, budget=budget, reserve=reserve)
    if found is None or found.whole:
        return ""
    way_out = '; device_map={"": 0} puts all of it on the card' if sum(found.bytes.values()) <= found.free else ""
    return (
        f'loaded with device_map="auto" the model is not whole on the card: {away(found, scenario)}, '
        f"{because(found, scenario)}; {consequence(found, scenario)}{way_out}"
    )


def away(found: DeviceMap, scenario: Scenario) -> str:
    """What is not on the card: `12 of 32 layers and 2 other modules (1.20 GiB) go to the CPU`."""
    prefix = f"{scenario.architecture.layer_prefix}."
    parts = []
    for place, words in ((Place.CPU, "to the CPU"), (Place.DISK, "to the disk")):
        paths = [path for path in found.at(place) if found.sizes[path]]
        if not paths:
            continue
        layers = sum(path.startswith(prefix) for path in paths)
        count = len(scenario.architecture.layers)
        named = [f"{layers} of {count} layers"] if layers else []
        rest = len(paths) - layers
        named += [f"{rest} other module{'s' if rest > 1 else ''}"] if rest else []
        parts.append(f"{' and '.join(named)} ({human(found.bytes[place])}) go {words}")
    return ", ".join(parts)


def because(found: DeviceMap, scenario: Scenario) -> str:
    """Why: the share of the free memory that is counted on, and what is kept free within it."""
    share = "90 %" if scenario.quant.type is QuantType.NONE else "90 % of 90 %"
    return (
        f"for transformers uses {share} of what is free ({human(found.limit)} of {human(found.free)}) "
        f"and keeps {human(found.kept_free)} of it empty for its largest module"
    )


def consequence(found: DeviceMap, scenario: Scenario) -> str:
    """What then happens, in the libraries' own words."""
    quantized = scenario.quant.type is not QuantType.NONE
    mixed = bool(found.at(Place.DISK)) or bool(found.at(Place.GPU))
    if quantized and mixed:
        return f"loading then stops with a ValueError: '{REFUSED} ...'"
    if not scenario.method.trains:
        return "each use then copies these modules to the card"
    if quantized:
        return f"training then stops: accelerate refuses a quantised model '{ELSEWHERE}'"
    return f"training then stops: '{NOT_MOVED}'"
