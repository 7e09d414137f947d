"""The adapters that peft attaches, and the tensors that are trained (peft 0.21.2)."""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from vramplan.architecture import HEAD, Architecture, Weight, WeightKind
from vramplan.element_types import ELEMENT_BYTES
from vramplan.errors import UsageError, nearest
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.saved_modules import copy_label, is_trained, trained_dtype, training_architecture
from vramplan.predict.weight_groups import Group, layer_groups
from vramplan.scenario import ALL_LINEAR, DType, Lora, Method, Scenario
from vramplan.stacks import LossKernel

#: tuners/lora/model.py _create_new_module: the kinds of weight whose modules have a LoRA layer.
_ADAPTABLE = (WeightKind.LINEAR, WeightKind.SUBLINEAR, WeightKind.HEAD, WeightKind.EMBEDDING)

#: What peft calls DoRA's vectors.
MAGNITUDES = "lora_magnitude_vector"

#: peft 0.21.2 tuners_utils.py `_check_lora_target_modules_mamba`.
_STATE_SPACES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_OUT_OF_STATES = "out_proj"


class Trainable(NamedTuple):
    """A parameter tensor that is trained, with how many times it occurs (once per layer of its kind)."""

    label: str
    shape: tuple[int, ...]
    dtype: str
    """torch's name of the element type; its gradient has the same."""
    times: int
    embedding: bool = False
    """Whether it is the table of an nn.Embedding."""
    bias: bool = False
    """Whether transformers takes it for a bias, by its name."""
    magnitude: bool = False
    """Whether it is DoRA's vector."""
    on_head: bool = False
    """Whether it belongs to an adapter on the output head."""

    @property
    def numel(self) -> int:
        """Elements of one of them."""
        return prod(self.shape)

    @property
    def element(self) -> int:
        """Bytes of one element."""
        return ELEMENT_BYTES[self.dtype]

    @property
    def bytes(self) -> int:
        """Bytes of one of them."""
        return self.numel * self.element


def _matches(path: str, target: str) -> bool:
    """tuners_utils.py check_target_module_exists: the whole name, or its end after a dot."""
    return path == target or path.endswith(f".{target}")


def adapted(weight: Weight, targets: Targets) -> bool:
    """Whether peft adapts the module of `weight`, by targets that name modules.

    `all-linear` takes every `nn.Linear` and `Conv1D` but the output head (tuners_utils.py,
    _maybe_include_all_linear_layers); names take every module whose path ends in them.
    """
    if any(_matches(weight.owner, name) for name in targets.without):
        return False
    if targets.modules == (ALL_LINEAR,):
        return weight.adaptable
    return weight.kind in _ADAPTABLE and any(_matches(weight.owner, target) for target in targets.modules)


def check_targets(architecture: Architecture, lora: Lora) -> None:
    """Raise a UsageError for a target that matches no module of the model, or adapters that peft refuses."""
    targets = resolve_targets(architecture, lora)
    if targets.parameters and lora.dropout:
        raise UsageError(
            f"lora.dropout {lora.dropout} on {architecture.name}: peft has no dropout for adapters of experts",
            hint="set lora.dropout: 0, or target attention alone (q_proj, k_proj, v_proj, o_proj)",
        )
    if targets.parameters and lora.dora:
        raise UsageError(
            f"lora.dora on {architecture.name}: peft has no DoRA for adapters of experts",
            hint="set lora.dora: false, or target attention alone (q_proj, k_proj, v_proj, o_proj)",
        )
    _refuse_state_space(architecture, lora)
    if lora.targets == (ALL_LINEAR,):
        return
    modules = [weight for weight, _ in architecture.counted if weight.kind in _ADAPTABLE]
    for target in targets.modules:
        if architecture.tied and target == HEAD:  # which shares the table, and has a module of its own all the same
            continue
        if any(_matches(weight.owner, target) for weight in modules):
            continue
        names = list(dict.fromkeys((*(weight.module for weight in modules), *targets.known)))
        raise UsageError(
            f"unknown target module '{target}' for {architecture.name}",
            hint=f"{nearest(target, names)}available: {', '.join(names)}, or {ALL_LINEAR}",
        )


def _refuse_state_space(architecture: Architecture, lora: Lora) -> None:
    """Raise a UsageError for the projection out of a state space, whose kernel reads its weight past the adapter."""
    if architecture.family not in _STATE_SPACES:
        return
    names = dict.fromkeys(w.module for w, _ in architecture.counted if w.kind in _ADAPTABLE)
    chosen = names if lora.targets == (ALL_LINEAR,) else lora.targets
    if _OUT_OF_STATES in chosen:
        others = ", ".join(name for name in names if name != _OUT_OF_STATES)
        raise UsageError(
            f"peft refuses adapters on '{_OUT_OF_STATES}' of '{architecture.family}'",
            hint=f"name other modules in lora.targets: {others}",
        )


def lora_shapes(weight: Weight, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of lora_A and lora_B: `[r, in]` and `[out, r]` (tuners/lora/layer.py); an embedding's in is its rows."""
    if weight.kind is WeightKind.EMBEDDING:
        rows, hidden = weight.shape
        return (rank, rows), (hidden, rank)
    inputs, outputs = weight.in_out
    return (rank, inputs), (outputs, rank)


def expert_shapes(weight: Weight, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of lora_A and lora_B of a bare parameter, the ranks of all experts side by side.

    tuners/lora/layer.py ParamWrapper: `nn.Linear(in, r * experts)` and `nn.Linear(r * experts, out)`.
    """
    *lead, outputs, inputs = weight.shape
    wide = rank * prod(lead)
    return (wide, inputs), (outputs, wide)


def adapter_tensors(weight: Weight, scenario: Scenario, targets: Targets, times: int = 1) -> tuple[Trainable, ...]:
    """lora_A and lora_B of one base weight, and DoRA's magnitudes; nothing when it is not among the targets."""
    lora = scenario.lora
    if adapted(weight, targets):
        name, shapes = weight.module, lora_shapes(weight, lora.rank)
    elif factor := targets.rank_factor(weight):
        name, shapes = weight.path, expert_shapes(weight, lora.rank * factor)
    else:
        return ()
    parts = zip(("lora_A", "lora_B"), shapes, strict=True)
    on_head = weight.kind is WeightKind.HEAD
    matrices = tuple(Trainable(f"{name}.{part}", shape, lora.dtype, times, on_head=on_head) for part, shape in parts)
    if not lora.dora:
        return matrices
    outputs = shapes[1][0]
    dtype = DType.FLOAT32 if scenario.recasts_adapters else lora.dtype  # TRL's cast passes them over
    magnitudes = Trainable(f"{name}.{MAGNITUDES}", (outputs,), dtype, times, magnitude=True, on_head=on_head)
    return (*matrices, magnitudes)


def trained_tensors(weight: Weight, scenario: Scenario, targets: Targets, times: int = 1) -> tuple[Trainable, ...]:
    """What is trained because of one base weight: its adapter, a copy, itself under full fine-tuning, or nothing."""
    if weight.kind is not WeightKind.BUFFER and is_trained(weight, scenario):
        return (whole(weight, scenario, times),)
    return adapter_tensors(weight, scenario, targets, times) if scenario.method.adapts else ()


def whole(weight: Weight, scenario: Scenario, times: int = 1) -> Trainable:
    """A weight that is trained as it is, or the copy that peft makes of it."""
    label = weight.path if scenario.method is Method.FULL else copy_label(weight)
    table, bias = weight.kind is WeightKind.EMBEDDING, "bias" in weight.path
    return Trainable(label, weight.shape, trained_dtype(weight, scenario), times, embedding=table, bias=bias)


def trainables(scenario: Scenario) -> tuple[Trainable, ...]:
    """Every trained parameter tensor of the run, tensors that repeat over layers counted, not listed."""
    if not scenario.method.trains:
        return ()
    targets = resolve_targets(scenario.architecture, scenario.lora)
    counted = training_architecture(scenario).counted
    return tuple(t for weight, times in counted for t in trained_tensors(weight, scenario, targets, times))


def stepped(scenario: Scenario) -> tuple[Trainable, ...]:
    """The trainable tensors that get a gradient, which are those that the optimizer makes states for."""
    return tuple(t for t in trainables(scenario) if not is_idle(t, scenario))


def is_idle(tensor: Trainable, scenario: Scenario) -> bool:
    """Whether it is of an adapter on the head, past which Liger's loss multiplies by the head's own weight
    (liger-kernel 0.8.5 transformers/model/*.py)."""
    return scenario.stack.loss is LossKernel.LIGER and tensor.on_head


def stepped_in_order(scenario: Scenario) -> list[tuple[int, tuple[Trainable, ...]]]:
    """The stepped tensors in the model's order, layers that follow each other and are alike once, with their number."""
    architecture = training_architecture(scenario)
    targets = resolve_targets(architecture, scenario.lora)
    groups = (Group(architecture.before, 1), *layer_groups(architecture), Group(architecture.after, 1))
    return [
        (times, tuple(t for weight in weights for t in _stepped_of(weight, scenario, targets)))
        for weights, times in groups
    ]


def _stepped_of(weight: Weight, scenario: Scenario, targets: Targets) -> Iterator[Trainable]:
    return (t for t in trained_tensors(weight, scenario, targets) if not is_idle(t, scenario))
