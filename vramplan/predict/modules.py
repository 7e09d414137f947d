"""The modules of one decoder layer as they run: projections, norms, parameters, and the adapters of each."""

from vramplan.architecture import Architecture, Weight, WeightKind
from vramplan.predict.adapters import adapted, expert_shapes, lora_shapes
from vramplan.predict.base import prepared_element
from vramplan.predict.expert_targets import Targets, resolve_targets
from vramplan.predict.liger import patched
from vramplan.predict.liger_layers import liger_rms_norm
from vramplan.predict.linear import Adapter, Quantised
from vramplan.predict.operations import layer_norm, rms_norm
from vramplan.predict.projections import Projection
from vramplan.predict.quantization import is_quantized
from vramplan.predict.saved_modules import is_trained
from vramplan.predict.tape import FLOAT32, FLOATS, Kind, Shape, Tape, Tensor
from vramplan.scenario import QuantType, Scenario
from vramplan.stacks import LayerKernel

#: Weights of linear layers.
_LINEAR = (WeightKind.LINEAR, WeightKind.SUBLINEAR, WeightKind.HEAD)


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
        self.liger = patched(scenario)
        """What Liger's kernels replace."""
        self.projections: dict[str, Projection] = {}
        self.tensors: dict[str, Tensor] = {}
        self.adapters: dict[str, Adapter] = {}
        """Those of bare parameters, by the parameter's path."""
        self.tables: dict[str, Adapter] = {}
        """Those of embeddings, by the table's path."""
        self.scores: list[Tensor] | None = None
        """What a router says of its experts, while somebody asks."""
        resolved = resolve_targets(scenario.architecture, scenario.lora) if scenario.method.adapts else None
        biases = {w.path: w for w in weights if w.kind is WeightKind.BIAS}
        for weight in weights:
            if weight.kind in _LINEAR:
                path = weight.path.removesuffix(".weight")
                self.projections[path] = _projection(t, scenario, weight, biases.get(f"{path}.bias"), resolved)
            elif weight.kind is not WeightKind.BIAS or not _of_linear(weight, weights):
                self.tensors[weight.path] = _parameter(t, scenario, weight, weight.shape)
                if resolved and (factor := resolved.rank_factor(weight)):
                    self.adapters[weight.path] = _plain_adapter(
                        t, scenario, expert_shapes(weight, scenario.lora.rank * factor)
                    )
                elif resolved and adapted(weight, resolved):
                    self.tables[weight.path] = _plain_adapter(t, scenario, lora_shapes(weight, scenario.lora.rank))

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
    owner = bias.path.removesuffix(".bias")
    return any(weight.kind in _LINEAR and weight.path == f"{owner}.weight" for weight in weights)


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
    """A 4-bit layer has cast its own to what it computes in (bitsandbytes 0.50 nn/modules.py Linear4bit.forward); an
    8-bit one casts it when it runs (`linear_8bit`)."""
    if quantised is None:
        return _parameter(t, scenario, bias, bias.shape)
    kind = quantised.compute if quantised.bits == 4 else kind_of(bias, scenario)
    t.biases[bias.path] = t.parameter(bias.shape, kind, trained=False)
    return t.biases[bias.path]


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
    dropout = scenario.lora.dropout > 0
    return Adapter(a, b, dropout=dropout, drops=dropout and not scenario.stack.prefers, magnitude=magnitude)


def _plain_adapter(t: Tape, scenario: Scenario, shapes: tuple[Shape, Shape]) -> Adapter:
    """The adapter of what is no linear layer: without dropout or magnitude."""
    kind = FLOATS[scenario.lora.dtype.value]
    a, b = (t.parameter(shape, kind, trained=True) for shape in shapes)
    return Adapter(a, b, dropout=False, drops=False, magnitude=None)


def _quantised(scenario: Scenario, *, biased: bool) -> Quantised:
    quant = scenario.quant
    compute, origin = FLOATS[scenario.compute_dtype.value], FLOATS[scenario.dtype.value]
    bits = 8 if quant.type is QuantType.INT8 else 4
    return Quantised(bits, quant.block_size, quant.double, compute, origin, biased)
