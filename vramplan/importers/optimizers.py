"""Optimizers by the names of other libraries, in transformers' spelling."""

from collections.abc import Mapping

from vramplan.importers.source import Source
from vramplan.optimizers import OPTIMIZERS
from vramplan.units import human

#: Names of older releases of transformers, and of axolotl, whose states are those of a name that is modelled.
_SAME_STATES: Mapping[str, str] = {
    "adamw_hf": "adamw_torch",  # transformers 4: its own AdamW, two states per parameter
    "adamw_anyprecision": "adamw_torch",
    "adamw_torch_npu_fused": "adamw_torch_fused",
    "adamw_bnb_32bit": "paged_adamw_32bit",
}
#: How names begin of optimizers that keep less -> states or gradients of a parameter's size that the stand-in has and
#: they have not (transformers 5.17.0 training_args.py OptimizerNames; axolotl 0.19.0 enums.py has q_galore): low-rank
#: states; none at all, and each gradient gone once it is used, as with GaLore's layerwise variants.
_LEANER: Mapping[str, int] = {"galore_": 2, "q_galore_": 2, "apollo_": 2, "lomo": 3, "adalomo": 3}
#: What transformers and axolotl take where none is named.
_DEFAULT = "adamw_torch_fused"
#: What stands in for an optimizer that is not modelled: it has two states per parameter, as most have.
_STAND_IN = "adamw_torch"

#: Classes as torchtune's `optimizer._component_` names them (recipes/configs/ of torchtune 0.6.1 and its documentation;
#: bitsandbytes 0.50 optim/; without the word 8bit their states have 32 bits, and transformers' names say so).
COMPONENTS: Mapping[str, str] = {
    "torch.optim.AdamW": "adamw_torch",
    "torch.optim.Adam": "adamw_torch",
    "torch.optim.SGD": "sgd",
    "torch.optim.Adagrad": "adagrad",
    "torch.optim.RMSprop": "rmsprop",
    "bitsandbytes.optim.AdamW8bit": "adamw_8bit",
    "bitsandbytes.optim.Adam8bit": "adamw_8bit",
    "bitsandbytes.optim.PagedAdamW": "paged_adamw_32bit",
    "bitsandbytes.optim.PagedAdamW32bit": "paged_adamw_32bit",
    "bitsandbytes.optim.PagedAdamW8bit": "paged_adamw_8bit",
    "bitsandbytes.optim.PagedAdam8bit": "paged_adamw_8bit",
    "bitsandbytes.optim.Lion": "lion_32bit",
    "bitsandbytes.optim.Lion8bit": "lion_8bit",
    "bitsandbytes.optim.PagedLion": "paged_lion_32bit",
    "bitsandbytes.optim.PagedLion8bit": "paged_lion_8bit",
    "bitsandbytes.optim.AdEMAMix": "ademamix",
    "bitsandbytes.optim.AdEMAMix8bit": "ademamix_8bit",
    "bitsandbytes.optim.RMSprop8bit": "rmsprop_bnb_8bit",
}


def read_optimizer(source: Source, key: str, origin: str, *, whole: int = 0) -> None:
    """`optimizer` from transformers' or axolotl's name; another one is warned about and stood in for.

    `whole` are the bytes of a model that is trained as a whole.
    """
    name = source.word(key)
    if name is None:
        source.assume("optimizer", _DEFAULT, f"default of {key}, {origin}")
        return
    plain = name.lower().removeprefix("optimizernames.")
    known = plain if plain in OPTIMIZERS else _SAME_STATES.get(plain)
    times = next((times for start, times in _LEANER.items() if plain.startswith(start)), 0)
    spared = whole * (times + ("layerwise" in plain))
    if times and spared:
        source.read(key, "optimizer", _STAND_IN)
        source.warn(
            f"{key}: '{name}' keeps less than {_STAND_IN}, which stands in for it: an upper bound, up to"
            f" {human(spared)} too high",
            ours="optimizer",
            above=spared,
        )
        return
    _conclude(source, key, name, known)


def read_component(source: Source) -> None:
    """`optimizer` from the class that torchtune's `optimizer._component_` names."""
    key = "optimizer._component_"
    name = source.word(key)
    if name is None:
        source.refuse(key, "names no optimizer", hint="such as torch.optim.AdamW")
    known = COMPONENTS.get(name)
    fused = source.flag("optimizer.fused")
    if known == "adamw_torch" and fused:
        source.read((key, "optimizer.fused"), "optimizer", "adamw_torch_fused")
        return
    _conclude(source, key, name, known)


def _conclude(source: Source, key: str, name: str, known: str | None) -> None:
    source.read(key, "optimizer", known or _STAND_IN)
    if known is None:
        source.warn(
            f"{key}: the states of '{name}' are not known; predicted as {_STAND_IN}, two states per parameter",
            ours="optimizer",
        )
