"""The adapters that peft attaches, and the tensors that are trained (peft 0.21.2)."""

from typing import NamedTuple

from vramplan.architecture import Architecture, Weight, WeightKind
from vramplan.errors import UsageError, nearest
from vramplan.predict.base import prepared_element
from vramplan.scenario import ALL_LINEAR, Lora, Method, Scenario

#: tuners/lora/model.py _create_new_module: the kinds of weight whose modules have a LoRA layer.
_ADAPTABLE = (WeightKind.LINEAR, WeightKind.SUBLINEAR, WeightKind.HEAD, WeightKind.EMBEDDING)


class Trainable(NamedTuple):
    """A parameter tensor that is trained, with how many times it occurs (once per layer of its kind)."""

    label: str
    shape: tuple[int, ...]
    element: int
    """Bytes of one element; its gradient has the same."""
    times: int
    embedding: bool = False
    """Whether it is the table of an nn.Embedding."""

    @property
    def numel(self) -> int:
        """Elements of one of them."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    @property
    def bytes(self) -> int:
        """Bytes of one of them."""
        return self.numel * self.element


def module_path(weight: Weight) -> str:
    """Path of the module that owns `weight`, relative to its layer where it is in one: `self_attn.q_proj`."""
    return weight.path.rpartition(".")[0]


def _matches(path: str, target: str) -> bool:
    """tuners_utils.py check_target_module_exists: the whole name, or its end after a dot."""
    return path == target or path.endswith(f".{target}")


def adapted(weight: Weight, targets: tuple[str, ...]) -> bool:
    """Whether peft adapts the module of `weight`.

    `all-linear` takes every `nn.Linear` and `Conv1D` but the output head (tuners_utils.py,
    _maybe_include_all_linear_layers); names take every module whose path ends in them. Experts' 3-D parameters and bare
    routers are no modules, so never.
    """
    if targets == (ALL_LINEAR,):
        return weight.adaptable
    return weight.kind in _ADAPTABLE and any(_matches(module_path(weight), target) for target in targets)


def check_targets(architecture: Architecture, lora: Lora) -> None:
    """Raise a UsageError for a target that matches no module of the model."""
    if lora.targets == (ALL_LINEAR,):
        return
    modules = [weight for weight, _ in architecture.counted if weight.kind in _ADAPTABLE]
    for target in lora.targets:
        if any(_matches(module_path(weight), target) for weight in modules):
            continue
        names = list(dict.fromkeys(weight.module for weight in modules))
        raise UsageError(
            f"unknown target module '{target}' for {architecture.name}",
            hint=f"{nearest(target, names)}available: {', '.join(names)}, or {ALL_LINEAR}",
        )


def lora_shapes(weight: Weight, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of lora_A and lora_B (lora/layer.py): `[r, in]`, `[out, r]`; an embedding's in is the vocabulary."""
    if weight.kind is WeightKind.EMBEDDING:
        vocab, hidden = weight.shape
        return (rank, vocab), (hidden, rank)
    columns, rows = weight.in_out
    return (rank, columns), (rows, rank)


def adapter_tensors(weight: Weight, lora: Lora, times: int = 1) -> tuple[Trainable, ...]:
    """lora_A and lora_B of one adapted weight."""
    a, b = lora_shapes(weight, lora.rank)
    return (
        Trainable(f"{weight.module}.lora_A", a, lora.dtype.bytes, times),
        Trainable(f"{weight.module}.lora_B", b, lora.dtype.bytes, times),
    )


def trained_tensors(weight: Weight, scenario: Scenario, times: int = 1) -> tuple[Trainable, ...]:
    """What is trained because of one base weight: its adapter, itself under full fine-tuning, or nothing."""
    if scenario.method is Method.FULL:
        if weight.kind is WeightKind.BUFFER:
            return ()
        table = weight.kind is WeightKind.EMBEDDING
        return (Trainable(weight.path, weight.shape, prepared_element(weight, scenario), times, table),)
    if scenario.method.adapts and adapted(weight, scenario.lora.targets):
        return adapter_tensors(weight, scenario.lora, times)
    return ()


def trainables(scenario: Scenario) -> tuple[Trainable, ...]:
    """Every trained parameter tensor of the run, tensors that repeat over layers counted, not listed."""
    if not scenario.method.trains:
        return ()
    return tuple(t for weight, times in scenario.architecture.counted for t in trained_tensors(weight, scenario, times))
