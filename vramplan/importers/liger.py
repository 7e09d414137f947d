"""Liger's kernels in the layers, as other libraries' files ask for them."""

from collections.abc import Mapping, Sequence

from vramplan.importers.source import Source
from vramplan.importers.targets import architecture
from vramplan.predict.liger import LIGER
from vramplan.scenario import ModelRef
from vramplan.stacks import LayerKernel, kernels_asked


def read_kernels(source: Source, keys: Sequence[str], model: ModelRef, kernels: Sequence[LayerKernel]) -> None:
    """`stack.kernels` because of these keys; a warning alone where what Liger replaces is not written down."""
    family = architecture(source, model).family
    if family not in LIGER:
        source.warn(
            f"{', '.join(keys)}: whether Liger replaces anything in {family} is not known here; where it does, fewer "
            "activations are kept than predicted",
            ours="stack.kernels",
        )
    elif kernels:
        source.read(keys, "stack.kernels", "liger" if len(kernels) == len(LayerKernel) else [*kernels])


def trainer_kernels(source: Source) -> tuple[LayerKernel, ...]:
    """What transformers' `liger_kernel_config` leaves of them: all where there is none."""
    config = source.given("liger_kernel_config")
    if config is not None and not isinstance(config, Mapping):
        source.refuse("liger_kernel_config", "is no mapping", hint="liger_kernel_config: {rope: true, swiglu: false}")
    return kernels_asked(config or {})
