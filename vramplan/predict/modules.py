"""The modules of one decoder layer as they run: projections, norms, and what attention needs to know."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vramplan.architecture import Architecture, Block, Weight, WeightKind
from vramplan.attention import Choice
from vramplan.ledger import Component
from vramplan.predict.adapters import adapted, expert_shapes, lora_shapes
from vramplan.predict.base import prepared_element
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.liger import replaced
from vramplan.predict.liger_layers import liger_rms_norm
from vramplan.predict.linear import Adapter, Quantised
from vramplan.predict.operations import layer_norm, rms_norm
from vramplan.predict.operations_attention import Heads, sdpa
from vramplan.predict.operations_eager import eager
from vramplan.predict.projections import Projection
from vramplan.predict.quantization import is_quantized
from vramplan.predict.saved_modules import is_trained
from vramplan.predict.sinks import eager_with_sinks
from vramplan.predict.tape import FLOAT32, FLOATS, Kind, Shape, Tape, Tensor
from vramplan.predict.unpadded import flash_unpadded
from vramplan.scenario import QuantType, Scenario
from vramplan.stacks import LayerKernel


def kind_of(weight: Weight, scenario: Scenario) -> Kind:
    """The element type that a weight, or the copy in its place, has while training."""
    cast = scenario.lora.modules_dtype
    if cast is not None and is_trained(weight, scenario):
        return FLOATS[cast.value]
    if prepared_element(weight, scenario) == 4:
        return FLOAT32
    return FLOATS[weight.dtype or scenario.dtype.value]


def _parameter(t: Tape, scenario: Scenario, weight: Weight, shape: Shape) -> Tensor:
    return t.parameter(shape, kind_of(weight, scenario), trained=is_trained(weight, scenario))


class Modules:
    """Projections and norms of one layer, by their path inside it; trained parameters appear on the tape."""

    def __init__(self, t: Tape, scenario: Scenario, weights: tuple[Weight, ...]) -> None:
        self._norm_is_rms = scenario.architecture.norm == "rms"
        self.liger = replaced(scenario)
        """What Liger's kernels replace."""
        self.projections: dict[str, Projection] = {}
        self.tensors: dict[str, Tensor] = {}
        self.adapters: dict[str, Adapter] = {}
        """Those of bare parameters, by the parameter's path."""
        self.tables: dict[str, Adapter] = {}
        """Those of embeddings, by the table's path."""
        resolved = resolve_targets(scenario.architecture, scenario.lora) if scenario.method.adapts else None
        biases = {w.path: w for w in weights if w.kind is WeightKind.BIAS}
        for weight in weights:
            if weight.kind in (WeightKind.LINEAR, WeightKind.SUBLINEAR, WeightKind.HEAD):
                path = weight.path.removesuffix(".weight")
                self.projections[path] = _projection(t, scenario, weight, biases.get(f"{path}.bias"), resolved)
            elif weight.kind is not WeightKind.BIAS or not _of_linear(weight, weights):
                self.tensors[weight.path] = _parameter(t, scenario, weight, weight.shape)
                if resolved and (factor := resolved.rank_factor(weight)):
                    self.adapters[weight.path] = _parameter_adapter(t, scenario, weight, factor)
                elif resolved and adapted(weight, resolved):
                    self.tables[weight.path] = _table_adapter(t, scenario, weight)

    def norm(
        self,
        t: Tape,
        path: str,
        x: Tensor,
        *,
        upcast_weight: bool = False,
        shifted: bool = False,
        contiguous: bool = True,
    ) -> Tensor:
        """The norm at `path`; `contiguous`: whether its input's rows lie in memory one behind the other."""
        name = path.rpartition(".")[2]
        outer, t.scope = t.scope, name
        weight = self.tensors[f"{path}.weight"]
        if LayerKernel.RMS_NORM in self.liger.kernels and name not in self.liger.untouched:
            in_place = name not in self.liger.not_in_place
            out = liger_rms_norm(t, x, weight, in_place=in_place, contiguous=contiguous)
        elif self._norm_is_rms:
            out = rms_norm(t, x, weight, upcast_weight=upcast_weight, shifted=shifted)
        else:
            out = layer_norm(t, x, weight, self.tensors.get(f"{path}.bias"))
        t.scope = outer
        return out

    def parameter(self, path: str) -> Tensor | None:
        """The parameter at `path`; None where it is quantised, or not there."""
        module, _, name = path.rpartition(".")
        linear = self.projections.get(module)
        if linear is None:
            return self.tensors.get(path)
        return linear.weight if name == "weight" else linear.bias

    def table(self, architecture: Architecture) -> Tensor:
        """The input embedding."""
        table = self.parameter(architecture.table.path)
        assert table is not None, "an embedding is never quantised"
        return table

    def __getitem__(self, path: str) -> Projection:
        return self.projections[path]


def _of_linear(bias: Weight, weights: tuple[Weight, ...]) -> bool:
    """Whether a bias belongs to a linear layer, and not, as a router's, to a bare parameter."""
    linear = (WeightKind.LINEAR, WeightKind.SUBLINEAR, WeightKind.HEAD)
    owner = bias.path.removesuffix(".bias")
    return any(weight.kind in linear and weight.path == f"{owner}.weight" for weight in weights)


def _projection(
    t: Tape, scenario: Scenario, weight: Weight, bias: Weight | None, targets: Targets | None
) -> Projection:
    inputs, outputs = weight.in_out
    quantised = _quantised(scenario, biased=bias is not None) if is_quantized(weight, scenario.quant) else None
    shape = (outputs, inputs)
    return Projection(
        weight.module,
        inputs,
        outputs,
        None if quantised else _parameter(t, scenario, weight, shape),
        quantised,
        None if bias is None else _bias(t, scenario, bias, quantised),
        _adapter(t, scenario, weight) if targets and _has_adapter(weight, targets) else None,
    )


def _bias(t: Tape, scenario: Scenario, bias: Weight, quantised: Quantised | None) -> Tensor:
    """A 4-bit layer has cast its own to what it computes in (bitsandbytes 0.50 nn/modules.py Linear4bit.forward)."""
    if quantised is not None and quantised.bits == 4:
        return t.parameter(bias.shape, quantised.compute, trained=False)
    return _parameter(t, scenario, bias, bias.shape)


def _has_adapter(weight: Weight, targets: Targets) -> bool:
    """By its module's name, or, for a router that is a linear layer of its own, by its parameter's."""
    return adapted(weight, targets) or targets.rank_factor(weight) > 0


def _adapter(t: Tape, scenario: Scenario, weight: Weight) -> Adapter:
    inputs, outputs = weight.in_out
    kind, rank = FLOATS[scenario.lora.dtype.value], scenario.lora.rank
    a = t.parameter((rank, inputs), kind, trained=True)
    b = t.parameter((outputs, rank), kind, trained=True)
    magnitude = None
    if scenario.lora.dora:
        magnitude = t.parameter((outputs,), FLOAT32 if scenario.recasts_adapters else kind, trained=True)
    return Adapter(a, b, scenario.lora.dropout > 0, magnitude)


def _parameter_adapter(t: Tape, scenario: Scenario, weight: Weight, factor: int) -> Adapter:
    kind = FLOATS[scenario.lora.dtype.value]
    a, b = (t.parameter(shape, kind, trained=True) for shape in expert_shapes(weight, scenario.lora.rank * factor))
    return Adapter(a, b, dropout=False, magnitude=None)


def _table_adapter(t: Tape, scenario: Scenario, weight: Weight) -> Adapter:
    kind = FLOATS[scenario.lora.dtype.value]
    a, b = (t.parameter(shape, kind, trained=True) for shape in lora_shapes(weight, scenario.lora.rank))
    return Adapter(a, b, dropout=False, magnitude=None)


def _quantised(scenario: Scenario, *, biased: bool) -> Quantised:
    quant = scenario.quant
    compute, origin = FLOATS[scenario.compute_dtype.value], FLOATS[scenario.dtype.value]
    bits = 8 if quant.type is QuantType.INT8 else 4
    return Quantised(bits, quant.block_size, quant.double, compute, origin, biased)


class Cache:
    """Keys and values of every token so far, one pair per layer (transformers' DynamicCache)."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.current = 0
        """The layer that runs."""
        self.length = 0
        """Tokens remembered after the next update, when there were some before."""
        self.before = 0
        """Tokens remembered until then, where steps that are not written out have added to the first ones."""

    def update(self, t: Tape, key: Tensor, value: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """`torch.cat([self.keys, key])`, then the same for values: the old ones go when the new ones exist.

        A layer with a window shorter than what there is remembers as much as the window (a view of it: the storage of
        a longer prompt stays until the next token).
        """
        old = self.layers.pop(self.current, None)
        if old is not None and self.before > old[0].shape[2] and not window:
            old = self._joined(t, old[0], "keys", self.before), old[1]
            old = old[0], self._joined(t, old[1], "values", self.before)
        keys = self._joined(t, key, "keys", self._tokens(key, window, grows=old is not None))
        old = None if old is None else (keys, old[1])
        values = self._joined(t, value, "values", keys.shape[2])
        del old
        self.layers[self.current] = keys, values
        return keys, values

    def _tokens(self, new: Tensor, window: int, *, grows: bool) -> int:
        if not grows:
            return new.shape[2]
        return window if 0 < window < self.length else self.length

    @staticmethod
    def _joined(t: Tape, new: Tensor, label: str, tokens: int) -> Tensor:
        batch, heads, _, dim = new.shape
        made = t.new((batch, heads, tokens, dim), new.kind, label)
        assert made.storage is not None
        t.script.name(made.storage.block, Component.CACHE)
        return made


@dataclass(slots=True)
class Context:
    """What the layers of a model share."""

    architecture: Architecture
    attention: str
    """What computes attention, in the scenario's words."""
    choose: Callable[[Kind, bool], Choice]
    """The kernel behind `sdpa` for queries of a kind, with or without a mask."""
    tables: dict[bool, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Cosines and sines for layers without and with a sliding window."""
    position_ids: Tensor | None = None
    masks: dict[bool, Tensor | None] = field(default_factory=dict)
    """For layers without and with a sliding window."""

    cache: Cache | None = None
    returned: Tensor | None = None
    """Attention weights that the layer that ran last returns beside its output (Falcon)."""

    def of(self, block: Block) -> "Context":
        """What one layer is handed: of the masks only its own, so that the other goes with the last layer it is for."""
        windowed = block.attention.window > 0
        return replace(self, masks={windowed: self.masks.get(windowed)})

    def remember(self, t: Tape, key: Tensor, value: Tensor, window: int = 0) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens so far, these included."""
        return (key, value) if self.cache is None else self.cache.update(t, key, value, window)

    def attend(
        self,
        t: Tape,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: Heads,
        *,
        windowed: bool = False,
        sinks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention's output [batch, seq, heads, dim], and its weights where the library returns them."""
        mask = self.masks.get(windowed)
        if sinks is not None:
            return eager_with_sinks(t, query, key, value, mask, heads, sinks)
        if self.attention == "eager":
            return eager(t, query, key, value, mask, heads)
        if self.attention == "flash_attention_2" and mask is not None:
            return flash_unpadded(t, query, key, value, heads), None
        if self.attention == "flash_attention_2":
            return sdpa(t, query, key, value, mask, heads, self.attention), None
        choice = self.choose(query.kind, mask is not None)
        t.choices.add(choice)
        return sdpa(t, query, key, value, mask, heads, choice.kernel.value), None
