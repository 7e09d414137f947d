"""`method: merge` as timeline parts: the base with its adapters, one layer after the other merged, the result saved.

peft 0.21.2 `merge_and_unload` (tuners/tuners_utils.py) visits modules in the model's order; an adapter goes when its
layer has been merged. What is in flight meanwhile is one matrix, in several copies.
"""

from dataclasses import dataclass, field

from msgspec.structs import replace

from vramplan.architecture import Weight, WeightKind
from vramplan.ledger import Component, Phase
from vramplan.predict.adapters import adapter_tensors
from vramplan.predict.base import component, is_vocabulary, loaded_element
from vramplan.predict.expert_targets import Targets, fused_projections, resolve_targets
from vramplan.predict.layers import runs
from vramplan.predict.loading import Group, attach, begin_load, load_groups, load_weight, write_quantization
from vramplan.predict.overheads import card, workspaces
from vramplan.predict.quantization import DYNAMIC_MAP_BYTES, is_quantized, pieces
from vramplan.predict.writer import Writer
from vramplan.record import Device
from vramplan.scenario import DType, Quant, QuantType, Scenario
from vramplan.timeline import Part
from vramplan.units import human

#: bitsandbytes 0.50 utils.py pack_dict_to_tensor: about so many characters of JSON go with each saved 4-bit matrix.
_STATE_JSON = 170


@dataclass
class _Stage:
    """Weights that exist `group.times` times, in the model's order, with their blocks."""

    group: Group
    base: dict[Weight, tuple[int, ...]]
    adapters: dict[Weight, list[int]] = field(default_factory=dict)


def merge_parts(scenario: Scenario, device: Device) -> tuple[Part, ...]:
    """LOAD, MERGE and SAVE of a merge."""
    return _Merge(scenario, device).parts()


#: peft 0.21 utils/constants.py EMBEDDING_LAYER_NAMES: where one is adapted, `save_pretrained` writes the whole
#: embedding and head beside the adapters.
_VOCABULARY = {"embed_tokens", "lm_head"}
#: Blocks by the group that they repeat with.
_Blocks = list[tuple[Group, list[int]]]


class _Merge:
    """Writes the run."""

    def __init__(self, scenario: Scenario, device: Device) -> None:
        self._scenario = scenario
        self._device = device
        self._writer = Writer()
        self._quant = merged_quant(scenario)
        self._targets: Targets = resolve_targets(scenario.architecture, scenario.lora)

    def parts(self) -> tuple[Part, ...]:
        """The whole run."""
        writer, scenario = self._writer, self._scenario
        stages = self._load()
        writer.enter(Phase.MERGE)
        if self._device == "cuda":
            writer.hold(workspaces(card(scenario))[0])
        for stage in stages:
            with writer.repeat(stage.group.times):
                for weight, pair in stage.adapters.items():
                    stage.base[weight] = self._merged(weight, stage.base[weight])
                    writer.free(*pair)
        writer.enter(Phase.SAVE)
        self._free(self._state_dict(stages) + self._unfused(stages))
        return tuple(writer.parts)

    # -- load

    def _load(self) -> list[_Stage]:
        writer, scenario, target = self._writer, self._scenario, card(self._scenario)
        begin_load(writer, scenario, self._device, capacity=target.capacity if target else 0)
        stages = []
        for group in load_groups(scenario):
            with writer.repeat(group.times):
                base = {weight: load_weight(writer, weight, scenario, self._device) for weight in group.weights}
            stages.append(_Stage(group, base))
        for stage, run in zip(stages[1:-2], runs(scenario.architecture), strict=True):
            stage.group = Group(run.weights, run.times)
        if scenario.merge.dequantize:
            self._dequantize(stages)
        for stage in stages:
            for weight, block in attach(writer, stage.group, scenario.lora, self._targets):
                stage.adapters.setdefault(weight, []).append(block)
        self._read_file(stages)
        return stages

    def _dequantize(self, stages: list[_Stage]) -> None:
        """transformers 5.17 integrations/bitsandbytes.py `dequantize_and_replace`: each matrix is made twice.

        A packed weight and its layer refer to each other (bitsandbytes `Params4bit.module`), and `named_modules`
        remembers every module it has seen: all packed weights are there until Python's collector runs, afterwards.
        """
        writer = self._writer
        packed: _Blocks = []
        for stage in stages:
            quantized = [weight for weight in stage.group.weights if is_quantized(weight, self._scenario.quant)]
            packed.append((stage.group, [block for weight in quantized for block in stage.base[weight]]))
            with writer.repeat(stage.group.times):
                for weight in quantized:
                    first = self._dequantized(weight)
                    second = self._dequantized(weight, component=Component.WEIGHTS)
                    writer.free(first)
                    stage.base[weight] = (second,)
        self._free(packed)

    def _dequantized(self, weight: Weight, component: Component = Component.WORKSPACE) -> int:
        """A quantised matrix as numbers again, of the dtype that it was quantised from; int8 as fp32, then cast."""
        writer, scenario, numel = self._writer, self._scenario, weight.numel
        label = f"{weight.module} dequantised"
        if scenario.quant.type is QuantType.INT8:
            return self._dequantized_int8(weight, component)
        absmax = 4 * -(-numel // scenario.quant.block_size)
        constants = [self._alloc(f"{weight.module} absmax", absmax)] if scenario.quant.double else []
        made = writer.alloc(component, label, numel * scenario.dtype.bytes)
        writer.free(*constants)
        return made

    def _dequantized_int8(self, weight: Weight, component: Component) -> int:
        """bitsandbytes 0.50 _ops.py int8_vectorwise_dequant: `A * stats.view(-1, 1) * (1 / 127)` in fp32."""
        writer, numel, label = self._writer, weight.numel, f"{weight.module} dequantised"
        product = self._alloc(f"{weight.module} times its row constants", 4 * numel)
        numbers = self._alloc(label, 4 * numel)
        writer.free(product)
        if component is Component.WORKSPACE or self._scenario.dtype is DType.FLOAT32:
            return numbers
        cast = writer.alloc(component, label, numel * self._scenario.dtype.bytes)
        writer.free(numbers)
        return cast

    def _read_file(self, stages: list[_Stage]) -> None:
        """The saved adapters arrive as a whole beside the ones that were made for them (peft `load_peft_weights`)."""
        writer, lora = self._writer, self._scenario.lora
        arrived: _Blocks = []
        for stage in stages:
            made = [t for weight in stage.adapters for t in adapter_tensors(weight, lora, self._targets)]
            with writer.repeat(stage.group.times):
                blocks = [self._alloc(f"{t.label} from the file", t.bytes) for t in made]
            arrived.append((stage.group, blocks))
        if _VOCABULARY & set(lora.targets):
            tables = [w for stage in stages for w in stage.base if is_vocabulary(w, self._scenario.architecture)]
            sizes = [(w.path, w.numel * self._scenario.dtype.bytes) for w in tables]
            arrived.append((Group((), 1), [self._alloc(f"{path} from the file", size) for path, size in sizes]))
        # peft compares shapes with those of the model (utils/save_and_load.py `_find_mismatched_keys`)
        self._free(self._state_dict(stages) + arrived)

    # -- merge

    def _merged(self, weight: Weight, base: tuple[int, ...]) -> tuple[int, ...]:
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
            sides = [self._alloc(f"{weight.module} {what} fp32", adapter * weight.numel) for what in ("term", "sum")]
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
        tensors = adapter_tensors(weight, scenario.lora, self._targets) if in_fp32 else ()
        factors = [self._alloc(f"{t.label} fp32", 4 * t.numel) for t in tensors]
        product = self._alloc(f"{weight.module} B @ A", 4 * numel if in_fp32 else size)
        delta = self._replaced(product, f"{weight.module} delta", 4 * numel if in_fp32 else size)
        if in_fp32:
            delta = self._replaced(delta, f"{weight.module} delta cast", size)
        self._writer.free(*factors)
        return delta

    def _add_safely(self, weight: Weight, delta: int, *, cast: bool) -> None:
        """`safe_merge`: the copy is added to and looked through."""
        size = loaded_element(weight, self._scenario) * weight.numel
        if cast:
            self._writer.free(self._alloc(f"{weight.module} delta cast", size))
        self._look_through(weight, size)
        self._writer.free(delta)

    def _look_through(self, weight: Weight, size: int) -> None:
        """`torch.isfinite(x)`: `(x == x) * (x.abs() != inf)`, all four results at once (ATen/TensorCompare.cpp)."""
        numel = weight.numel
        parts = {"x == x": numel, "abs": size, "abs != inf": numel, "isfinite": numel}
        self._writer.free(*(self._alloc(f"{weight.module} {what}", part) for what, part in parts.items()))

    def _requantized(self, weight: Weight, base: tuple[int, ...]) -> tuple[int, ...]:
        """lora/bnb.py `merge`: dequantise, add, carry over the CPU to the device, quantise; the old weight goes last.

        The sum has the wider dtype, fp32 with fp32 adapters, and on a card arrives there a second time.
        """
        writer, scenario, numel, name = self._writer, self._scenario, weight.numel, weight.module
        int8 = scenario.quant.type is QuantType.INT8
        flying = [self._dequantized(weight), self._delta(weight)]
        wide = DType.FLOAT32 if int8 or scenario.lora.dtype is not scenario.dtype else scenario.dtype
        if self._device == "cpu" and wide.bytes > min(4 if int8 else scenario.dtype.bytes, scenario.lora.dtype.bytes):
            term = self._alloc(f"{name} term fp32", wide.bytes * numel)
            flying.append(self._alloc(f"{name} merged", wide.bytes * numel))
            writer.free(term)
        else:
            flying.append(self._alloc(f"{name} merged", wide.bytes * numel))
        if scenario.merge.safe:
            self._look_through(weight, wide.bytes * numel)
        if int8:
            flying.append(self._alloc(f"{name} in float16", 2 * numel))
        elif self._device == "cuda":
            flying.append(self._alloc(f"{name} merged, back on the card", wide.bytes * numel))
        made = write_quantization(writer, weight, scenario.quant, self._device, wide, flying)
        writer.free(*base, *flying)
        return made

    def _alloc(self, label: str, size: int) -> int:
        return self._writer.alloc(Component.WORKSPACE, label, size)

    def _replaced(self, block: int, label: str, size: int) -> int:
        """A tensor made of another one, which then goes."""
        made = self._alloc(label, size)
        self._writer.free(block)
        return made

    # -- save

    def _state_dict(self, stages: list[_Stage]) -> _Blocks:
        """`state_dict` refers to the weights; of a 4-bit matrix it makes a few small tensors besides.

        bitsandbytes 0.50 functional.py `QuantState.as_dict`: a copy of the code map of the constants, JSON on the CPU.
        """
        writer, quant = self._writer, self._quant
        if not quant.type.four_bit:
            return []
        size = DYNAMIC_MAP_BYTES if quant.double else 0
        size += _STATE_JSON if self._device == "cpu" else 0
        made: _Blocks = []
        for stage in stages:
            quantized = [weight for weight in stage.group.weights if is_quantized(weight, quant)]
            with writer.repeat(stage.group.times):
                blocks = [self._alloc(f"{weight.module} saved constants", size) for weight in quantized if size]
            made.append((stage.group, blocks))
        return made

    def _unfused(self, stages: list[_Stage]) -> _Blocks:
        """Experts' fused projections are copied apart, as the checkpoint has them: all layers', before any is written.

        transformers 5.17 core_model_loading.py `revert_weight_conversion`: `Chunk` makes each part contiguous.
        """
        made: _Blocks = []
        for stage in stages:
            parts = [
                (weight, loaded_element(weight, self._scenario) * weight.numel // count)
                for weight in stage.group.weights
                for count in [fused_projections(self._scenario.architecture.family, weight)]
                if count > 1
                for _ in range(count)
            ]
            with self._writer.repeat(stage.group.times):
                blocks = [self._alloc(f"{weight.path} as saved", size) for weight, size in parts]
            made.append((stage.group, blocks))
        return made

    def _free(self, held: _Blocks) -> None:
        for group, blocks in held:
            with self._writer.repeat(group.times):
                self._writer.free(*blocks)


def saved_bytes(scenario: Scenario) -> int:
    """Bytes of the tensors that are saved: what the merged model weighs, without buffers that can be computed."""
    quant, total = merged_quant(scenario), 0
    for weight, times in scenario.architecture.counted:
        if is_quantized(weight, quant):
            total += times * sum(piece.bytes for piece in pieces(weight, quant))
        elif weight.kind is not WeightKind.BUFFER:
            total += times * weight.numel * loaded_element(weight, scenario)
    return total


def merged_quant(scenario: Scenario) -> Quant:
    """How the merged model is quantised: as it was loaded, or not at all once it was dequantised."""
    return replace(scenario.quant, type=QuantType.NONE, double=False) if scenario.merge.dequantize else scenario.quant


def save_note(scenario: Scenario, device: Device) -> str:
    """What is written, and what that takes outside the device's memory.

    transformers 5.17 `save_pretrained` writes file by file; safetensors copies a card's tensors to the host first.
    """
    written = f"{human(saved_bytes(scenario))} are written, in files of at most {scenario.merge.max_shard_size}"
    return f"{written}; each passes through host memory whole" if device == "cuda" else written


def merge_warnings(scenario: Scenario) -> tuple[str, ...]:
    """What merging into a quantised base changes besides memory."""
    quant = merged_quant(scenario)
    if quant.type is QuantType.NONE:
        return ()
    found = [
        f"merging into {quant.type.value} rounds the sum again: the merged model is not base plus adapter;"
        " quant.type: none merges in 16 bits, merge.dequantize: true from the quantised base"
    ]
    if quant.type.four_bit and scenario.lora.dtype is DType.FLOAT32 and scenario.dtype is not DType.FLOAT32:
        found.append(
            "the fp32 sums are quantised, and bitsandbytes remembers their dtype: a merged matrix that is dequantised"
            " takes 4 bytes per element, not 2"
        )
    return tuple(found)
