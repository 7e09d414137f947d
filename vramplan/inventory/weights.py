"""Every kind of weight of a model: where it is, how it is stored, and why it is quantised or not."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from vramplan.architecture import Weight, WeightKind
from vramplan.element_types import ELEMENT_BYTES
from vramplan.predict.adapters import adapted
from vramplan.predict.base import loaded_element, prepared_element, upcasts
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.quantization import is_quantized, not_quantized, pieces
from vramplan.predict.saved_modules import is_copied
from vramplan.scenario import QuantType, Scenario

#: Kinds that are matrices of a linear layer, or look like one: they have a line of their own in the table.
_MATRICES = (
    WeightKind.LINEAR,
    WeightKind.SUBLINEAR,
    WeightKind.HEAD,
    WeightKind.EXPERTS,
    WeightKind.ROUTER,
    WeightKind.EMBEDDING,
)


@dataclass(frozen=True, slots=True)
class Role:
    """Weights of one name, kind and shape, all layers together."""

    name: str
    """Path within the layer, or in the model where there is no layer: `self_attn.q_proj`."""
    kind: WeightKind
    shape: tuple[int, ...]
    count: int
    """How many of that shape the model has."""
    tensors: int
    """How many tensors that is: `count`, but for norms, biases and the like, which are one role together."""
    quantized: bool
    stored: str
    """How they are kept while the run goes on: `nf4`, `int8`, or the name of a dtype."""
    bytes: int
    """All of them together; quantised ones with their constants and tables."""
    why: str
    """Why they are quantised or not, and why in this dtype."""
    adapted: bool
    """Whether the scenario's targets give them adapters."""
    whole: bool
    """Whether copies of them are trained whole (`lora.modules_to_save`)."""

    @property
    def parameters(self) -> int:
        """Elements of all of them."""
        return self.count * prod(self.shape)


@dataclass(frozen=True)
class Inventory:
    """Every parameter and buffer of a model, each in exactly one role."""

    matrices: tuple[Role, ...]
    """Linear layers, heads, embeddings, experts and routers, by name and shape."""
    others: tuple[Role, ...]
    """Norms, biases, other parameters and buffers, by kind; their shape is their number of elements."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """All of them."""
        return (*self.matrices, *self.others)


def inventory(scenario: Scenario) -> Inventory:
    """The scenario's model, as it is stored once it is loaded and prepared."""
    architecture = scenario.architecture
    targets = resolve_targets(architecture, scenario.lora) if scenario.method.adapts else None
    matrices: dict[tuple[str, WeightKind, tuple[int, ...]], list[tuple[Weight, int]]] = {}
    others: dict[tuple[WeightKind, str], list[tuple[Weight, int]]] = {}
    for weight, times in (*architecture.counted, *((buffer, 1) for buffer in architecture.buffers)):
        if weight.kind in _MATRICES:
            name = weight.owner or weight.path
            if weight.kind in (WeightKind.EXPERTS, WeightKind.ROUTER):
                name = weight.path.removesuffix(".weight")
            matrices.setdefault((name, weight.kind, weight.shape), []).append((weight, times))
        else:
            others.setdefault((weight.kind, _stored(weight, scenario)), []).append((weight, times))
    rows = tuple(_matrix(name, found, scenario, targets) for (name, *_), found in matrices.items())
    made = Inventory(rows, tuple(_other(found, scenario) for found in others.values()))
    assert sum(r.parameters for r in made.roles if r.kind is not WeightKind.BUFFER) == architecture.numel
    return made


def _matrix(name: str, found: list[tuple[Weight, int]], scenario: Scenario, targets: Targets | None) -> Role:
    weight, count = found[0][0], sum(times for _, times in found)
    return Role(
        name=name,
        kind=weight.kind,
        shape=weight.shape,
        count=count,
        tensors=count,
        quantized=is_quantized(weight, scenario.quant),
        stored=_stored(weight, scenario),
        bytes=_bytes(found, scenario),
        why=why(weight, scenario),
        adapted=targets is not None and (adapted(weight, targets) or bool(targets.rank_factor(weight))),
        whole=targets is not None and is_copied(weight, scenario.lora),
    )


def _other(found: list[tuple[Weight, int]], scenario: Scenario) -> Role:
    weight = found[0][0]
    elements = sum(w.numel * times for w, times in found)
    return Role(
        name=_PLURAL[weight.kind],
        kind=weight.kind,
        shape=(elements,),
        count=1,
        tensors=sum(times for _, times in found),
        quantized=False,
        stored=_stored(weight, scenario),
        bytes=_bytes(found, scenario),
        why=why(weight, scenario),
        adapted=False,
        whole=scenario.method.adapts and any(is_copied(weight, scenario.lora) for weight, _ in found),
    )


_PLURAL = {
    WeightKind.NORM: "norms",
    WeightKind.BIAS: "biases",
    WeightKind.OTHER: "other parameters",
    WeightKind.BUFFER: "buffers",
}


def _bytes(found: Iterable[tuple[Weight, int]], scenario: Scenario) -> int:
    total = 0
    for weight, times in found:
        if is_quantized(weight, scenario.quant):
            total += times * sum(piece.bytes for piece in pieces(weight, scenario.quant))
        else:
            total += times * weight.numel * prepared_element(weight, scenario)
    return total


def _stored(weight: Weight, scenario: Scenario) -> str:
    if is_quantized(weight, scenario.quant):
        return scenario.quant.type.value
    element = prepared_element(weight, scenario)
    for name in (weight.dtype, scenario.dtype.value, "float32"):
        if name and ELEMENT_BYTES[name] == element:
            return name
    raise AssertionError(weight)


def why(weight: Weight, scenario: Scenario) -> str:
    """Why a weight is quantised or not, and why it was cast; empty where nothing needs a reason.

    peft 0.21.2 utils/other.py prepare_model_for_kbit_training.
    """
    reason = _reason(weight, scenario) if scenario.quant.type is not QuantType.NONE else ""
    if upcasts(weight, scenario) and loaded_element(weight, scenario) != prepared_element(weight, scenario):
        reason += f"{'; ' if reason else ''}cast from {scenario.dtype.value} by the preparation for k-bit training"
    return reason


def _reason(weight: Weight, scenario: Scenario) -> str:
    if is_quantized(weight, scenario.quant):
        return "Conv1D, replaced as nn.Linear is" if weight.transposed else "nn.Linear"
    return not_quantized(weight, scenario.architecture)
