"""One matrix while its adapter is merged into it, or while it is made numbers again: several copies are in flight.

peft 0.21.2: tuners/lora/layer.py and bnb.py `merge`, `get_delta_weight`.
"""

from vramplan.architecture import Weight, WeightKind
from vramplan.ledger import Component
from vramplan.predict.adapters import adapter_tensors
from vramplan.predict.base import component, loaded_element
from vramplan.predict.dequantized import dequantized_element, write_dequantized
from vramplan.predict.expert_targets import Targets
from vramplan.predict.loading import write_quantization
from vramplan.predict.merge import merged_quant
from vramplan.predict.quantization import is_quantized
from vramplan.predict.writer import Piece, Writer
from vramplan.record import Device
from vramplan.scenario import DType, QuantType, Scenario


class MatrixMerge:
    """Writes what each matrix takes; once the first product has its place, `library` takes its workspace on a card."""

    def __init__(self, writer: Writer, scenario: Scenario, device: Device, targets: Targets, library: Piece) -> None:
        self._writer = writer
        self._scenario = scenario
        self._device = device
        self._targets = targets
        self._quant = merged_quant(scenario)
        self._library = library if device == "cuda" else None

    def merged(self, weight: Weight, base: tuple[int, ...]) -> tuple[int, ...]:
        """Merge the adapter of one weight into it; the blocks that it has from now on."""
        if is_quantized(weight, self._quant):
            return self._requantized(weight, base)
        element, adapter = loaded_element(weight, self._scenario), self._scenario.lora.dtype.bytes
        copy = 0
        if self._scenario.merge.safe:
            copy = self._writer.alloc(component(weight, self._quant), weight.path, element * weight.numel)
        delta = self._delta(weight)
        if weight.kind in (WeightKind.EXPERTS, WeightKind.EMBEDDING) and adapter != element:
            delta = self._replaced(delta, f"{weight.module} delta cast", weight.numel * element)
            adapter = element
        if self._scenario.merge.safe:
            self._add_safely(weight, delta, cast=adapter != element)
            self._writer.free(*base)
            return (copy,)
        if self._device == "cpu" and adapter > element:
            # ATen/TensorIterator.cpp: on CPU a sum of two dtypes is made in the wider one, with copies of both sides
            size = adapter * weight.numel
            sides = [self._writer.temporary(f"{weight.module} {what} fp32", size) for what in ("term", "sum")]
            self._writer.free(*sides)
        self._writer.free(delta)
        return base

    def _delta(self, weight: Weight) -> int:
        """lora/layer.py get_delta_weight: `B @ A`, times the scaling: twice the matrix in the adapters' dtype.

        16-bit adapters on the CPU are multiplied in fp32 and cast back; not those of quantised layers (lora/bnb.py) or
        of experts (`ParamWrapper`).
        """
        scenario, numel = self._scenario, weight.numel
        size = scenario.lora.dtype.bytes * numel
        in_fp32 = self._device == "cpu" and size < 4 * numel and not is_quantized(weight, self._quant)
        in_fp32 = in_fp32 and weight.kind is not WeightKind.EXPERTS
        tensors = adapter_tensors(weight, scenario, self._targets) if in_fp32 else ()
        factors = [self._writer.temporary(f"{t.label} fp32", 4 * t.numel) for t in tensors]
        product = self._writer.temporary(f"{weight.module} B @ A", 4 * numel if in_fp32 else size)
        if self._library is not None:
            self._writer.hold(self._library)
            self._library = None
        delta = self._replaced(product, f"{weight.module} delta", 4 * numel if in_fp32 else size)
        if in_fp32:
            delta = self._replaced(delta, f"{weight.module} delta cast", size)
        self._writer.free(*factors)
        return delta

    def _add_safely(self, weight: Weight, delta: int, *, cast: bool) -> None:
        """`safe_merge`: the copy is added to and looked through."""
        size = loaded_element(weight, self._scenario) * weight.numel
        if cast:
            self._writer.free(self._writer.temporary(f"{weight.module} delta cast", size))
        self._look_through(weight, size)
        self._writer.free(delta)

    def _look_through(self, weight: Weight, size: int) -> None:
        """`torch.isfinite(x)`: `(x == x) * (x.abs() != inf)`, all four results at once (ATen/TensorCompare.cpp)."""
        numel = weight.numel
        parts = {"x == x": numel, "abs": size, "abs != inf": numel, "isfinite": numel}
        self._writer.free(*(self._writer.temporary(f"{weight.module} {what}", part) for what, part in parts.items()))

    def _requantized(self, weight: Weight, base: tuple[int, ...]) -> tuple[int, ...]:
        """lora/bnb.py `merge`: dequantise, add, carry over the CPU to the device, quantise; the old weight goes last.

        The sum has the wider dtype, fp32 with fp32 adapters, and on a card arrives there a second time.
        """
        writer, scenario, numel, name = self._writer, self._scenario, weight.numel, weight.module
        int8 = scenario.quant.type is QuantType.INT8
        flying = [self.dequantized(weight), self._delta(weight)]
        wide = DType.FLOAT32 if int8 or scenario.lora.dtype is not scenario.dtype else scenario.dtype
        if self._device == "cpu" and wide.bytes > min(4 if int8 else scenario.dtype.bytes, scenario.lora.dtype.bytes):
            term = writer.temporary(f"{name} term fp32", wide.bytes * numel)
            flying.append(writer.temporary(f"{name} merged", wide.bytes * numel))
            writer.free(term)
        else:
            flying.append(writer.temporary(f"{name} merged", wide.bytes * numel))
        if scenario.merge.safe:
            self._look_through(weight, wide.bytes * numel)
        if int8:
            flying.append(writer.temporary(f"{name} in float16", 2 * numel))
        elif self._device == "cuda":
            flying.append(writer.temporary(f"{name} merged, back on the card", wide.bytes * numel))
        made = write_quantization(writer, weight, scenario.quant, self._device, wide, flying)
        writer.free(*base, *flying)
        return made

    def dequantized(self, weight: Weight, held_as: Component = Component.WORKSPACE) -> int:
        """A quantised matrix as numbers again, of the dtype that it was quantised from; int8 as fp32, then cast."""
        writer, scenario = self._writer, self._scenario
        element = scenario.dtype.bytes
        stays = held_as is Component.WORKSPACE or dequantized_element(scenario) == element
        numbers = write_dequantized(writer, weight, scenario, held_as if stays else Component.WORKSPACE)
        if stays:
            return numbers
        cast = writer.alloc(held_as, f"{weight.module} dequantised", weight.numel * element)
        writer.free(numbers)
        return cast

    def _replaced(self, block: int, label: str, size: int) -> int:
        """A tensor made of another one, which then goes."""
        made = self._writer.temporary(label, size)
        self._writer.free(block)
        return made
