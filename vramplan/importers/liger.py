"""Liger's loss and kernels, as other libraries' files ask for them."""

from collections.abc import Mapping, Sequence

from vramplan.importers.source import Source
from vramplan.importers.targets import architecture
from vramplan.predict.liger import LIGER, fuses_loss, in_order, trainers_choice
from vramplan.scenario import ModelRef
from vramplan.stacks import LayerKernel

_CONFIG = "liger_kernel_config"


def read_kernels(source: Source, keys: Sequence[str], model: ModelRef, asked: Sequence[LayerKernel]) -> None:
    """`stack.kernels` because of these keys: those of the asked that Liger has for the family."""
    read = architecture(source, model)
    if read.family in LIGER:
        kernels = in_order(LIGER[read.family].kernels.intersection(asked))
        if kernels:
            source.read(keys, "stack.kernels", "liger" if len(kernels) == len(LayerKernel) else [*kernels])
    elif read.facts.derived:
        source.warn(
            f"{', '.join(keys)}: what Liger replaces in {read.family} is not written down, and not in the prediction "
            "(--loss liger --kernels liger --engine trace runs its own code)",
            ours="stack.kernels",
        )
    else:
        source.warn(f"{', '.join(keys)}: Liger has nothing for {read.family}, which stays as it is")


def read_loss(source: Source, keys: str | Sequence[str], model: ModelRef) -> None:
    """`stack.loss` where these keys ask for Liger's: its own, or the family's where it has none."""
    fused = fuses_loss(architecture(source, model).family)
    source.read(keys, "stack.loss", "liger" if fused else "torch")


def read_trainers_switch(source: Source, model: ModelRef) -> bool:
    """`stack.kernels` because of `use_liger_kernel` of TrainingArguments; whether the loss is fused too."""
    config = source.given(_CONFIG)
    if config is not None and not isinstance(config, Mapping):
        source.refuse(_CONFIG, "is no mapping", hint=f"{_CONFIG}: {{rope: true, swiglu: false}}")
    fused, kernels = trainers_choice(architecture(source, model).family, config or {})
    read_kernels(source, ["use_liger_kernel", *([_CONFIG] if config else [])], model, kernels)
    return fused


def ignore_trainers_config(source: Source) -> None:
    """Where Liger is off, or switched on by another key."""
    source.ignore(_CONFIG, "of use_liger_kernel, which is off")
