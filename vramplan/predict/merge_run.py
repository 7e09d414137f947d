"""`method: merge` as timeline parts: the base with its adapters, one layer after the other merged, the result saved.

peft 0.21.2 `merge_and_unload` (tuners/tuners_utils.py) visits modules in the model's order; an adapter goes when its
layer has been merged. What is in flight meanwhile is one matrix, in several copies (`merge_matrix`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vramplan.architecture import HEAD, Architecture, Weight
from vramplan.errors import CannotRun
from vramplan.ledger import Component, Phase
from vramplan.predict.adapters import trained_tensors
from vramplan.predict.attaching import attach
from vramplan.predict.base import is_vocabulary, loaded_element
from vramplan.predict.expert_targets import fused_projections, resolve_targets
from vramplan.predict.loading import begin_load, load_weight
from vramplan.predict.merge import merged_quant
from vramplan.predict.merge_matrix import MatrixMerge
from vramplan.predict.overheads import card, workspaces
from vramplan.predict.quantization import DYNAMIC_MAP_BYTES, is_quantized
from vramplan.predict.saved_modules import head_apart, is_copied
from vramplan.predict.weight_groups import Group, first_apart, layer_groups
from vramplan.predict.weights_file import load_groups
from vramplan.predict.writer import Writer
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.timeline import Part

#: bitsandbytes 0.50 utils.py pack_dict_to_tensor: about so many characters of JSON go with each saved 4-bit matrix.
_STATE_JSON = 170
#: Blocks by the group that they repeat with.
_Blocks = list[tuple[Group, list[int]]]


def merge_parts(scenario: Scenario, device: Device) -> tuple[Part, ...]:
    """LOAD, MERGE and SAVE of a merge; CannotRun for adapters whose merging is not written down."""
    for what, there in {
        "DoRA's adapters": scenario.lora.dora,
        "the adapter of a tied head": scenario.architecture.tied and HEAD in scenario.lora.targets,
    }.items():
        if there:
            raise CannotRun(f"merging {what} is not written down", hint="--engine trace runs peft's own code")
    return _Merge(scenario, device).parts()


@dataclass
class _Stage:
    """Weights that exist `group.times` times, in the model's order, with their blocks."""

    group: Group
    base: dict[Weight, tuple[int, ...]]
    adapters: dict[Weight, list[int]] = field(default_factory=dict)
    copies: dict[Weight, int] = field(default_factory=dict)
    """Of modules that were trained whole."""


def _in_order(stages: list[_Stage], architecture: Architecture) -> list[_Stage]:
    """What was loaded in the checkpoint's order, in the model's."""
    first, *layers, last, buffers = stages
    outside = first.base | last.base
    groups = first_apart(layer_groups(architecture))
    return [
        _Stage(Group(architecture.before, 1), {weight: outside[weight] for weight in architecture.before}),
        *(_Stage(group, stage.base) for group, stage in zip(groups, layers, strict=True)),
        _Stage(Group(architecture.after, 1), {weight: outside[weight] for weight in architecture.after}),
        buffers,
    ]


class _Merge:
    """Writes the run."""

    def __init__(self, scenario: Scenario, device: Device) -> None:
        self._scenario = scenario
        self._device = device
        self._writer = Writer()
        self._quant = merged_quant(scenario)
        self._targets = resolve_targets(scenario.architecture, scenario.lora)
        library, _ = workspaces(card(scenario), scenario.torch)
        self._matrices = MatrixMerge(self._writer, scenario, device, self._targets, library)

    def parts(self) -> tuple[Part, ...]:
        """The whole run."""
        writer, scenario = self._writer, self._scenario
        stages = self._load()
        writer.enter(Phase.MERGE)
        first = {weight.owner for weight in scenario.architecture.before}
        self._put_in_place(stages, lambda weight: weight.owner in first)
        for stage in stages:
            with writer.repeat(stage.group.times):
                for weight, pair in stage.adapters.items():
                    stage.base[weight] = self._matrices.merged(weight, stage.base[weight])
                    writer.free(*pair)
        self._put_in_place(stages, lambda weight: weight.owner not in first)
        writer.enter(Phase.SAVE)
        self._free(self._state_dict(stages) + self._unfused(stages))
        return tuple(writer.parts)

    def _put_in_place(self, stages: list[_Stage], wanted: Callable[[Weight], bool]) -> None:
        """Copies of modules that were trained whole take the modules' place, whose weights go."""
        for stage in stages:
            with self._writer.repeat(stage.group.times):
                for weight in filter(wanted, stage.copies):
                    self._writer.free(*self._last_of(weight, [stage, *stages]))

    def _last_of(self, weight: Weight, stages: list[_Stage]) -> tuple[int, ...]:
        """The blocks that go with the module of `weight`, by the first stage that has it; a tied table goes with the
        head, if the embedding has."""
        scenario, apart = self._scenario, head_apart(self._scenario)
        table = scenario.architecture.table
        if apart and (weight == table or not is_copied(table, scenario.lora)):
            return ()
        original = table if weight in apart else weight
        return next(stage.base[original] for stage in stages if original in stage.base)

    # -- load

    def _load(self) -> list[_Stage]:
        writer, scenario = self._writer, self._scenario
        # the first product takes the library's workspace: the first layer stands apart
        begin_load(writer, scenario, self._device)
        stages = []
        for group in first_apart(load_groups(scenario)):
            with writer.repeat(group.times):
                base = {weight: load_weight(writer, weight, scenario, self._device) for weight in group.weights}
            stages.append(_Stage(group, base))
        stages = _in_order(stages, scenario.architecture)
        if scenario.merge.dequantize:
            self._dequantize(stages)
        stages.append(_Stage(Group(head_apart(scenario), 1), {}))
        made = attach(writer, [stage.group for stage in stages], scenario, self._device)
        for stage, attached in zip(stages, made, strict=True):
            for one in attached:
                if is_copied(one.weight, scenario.lora):
                    stage.copies[one.weight] = one.block
                else:
                    stage.adapters.setdefault(one.weight, []).append(one.block)
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
                    first = self._matrices.dequantized(weight)
                    second = self._matrices.dequantized(weight, Component.WEIGHTS)
                    writer.free(first)
                    stage.base[weight] = (second,)
        self._free(packed)

    def _read_file(self, stages: list[_Stage]) -> None:
        """The saved adapters arrive as a whole beside the ones that were made for them (peft `load_peft_weights`).

        A safetensors file holds them in the order of their names, and beside them the whole of an adapted embedding or
        head (peft 0.21 `get_peft_model_state_dict`, EMBEDDING_LAYER_NAMES).
        """

        def read(stage: _Stage) -> Iterable[tuple[str, int]]:
            attached = sorted((*stage.adapters, *stage.copies), key=lambda weight: weight.path)
            tensors = (t for weight in attached for t in trained_tensors(weight, self._scenario, self._targets))
            return ((f"{t.label} from the file", t.bytes) for t in tensors)

        arrived = self._make(stages, read)
        adapted = (weight for stage in stages for weight in stage.adapters)
        for weight in sorted(adapted, key=lambda weight: weight.path):
            if is_vocabulary(weight, self._scenario.architecture):
                size = weight.numel * self._scenario.dtype.bytes
                arrived.append((Group((), 1), [self._writer.temporary(f"{weight.path} from the file", size)]))
        # peft compares shapes with those of the model (utils/save_and_load.py `_find_mismatched_keys`)
        self._free(self._state_dict(stages) + arrived)

    # -- save

    def _state_dict(self, stages: list[_Stage]) -> _Blocks:
        """`state_dict` refers to the weights; of a 4-bit matrix it makes a few small tensors besides.

        bitsandbytes 0.50 functional.py `QuantState.as_dict`: a copy of the code map of the constants, JSON on the CPU.
        """
        quant = self._quant
        size = DYNAMIC_MAP_BYTES if quant.double else 0
        size += _STATE_JSON if self._device == "cpu" else 0
        if not quant.type.four_bit or not size:
            return []

        def constants(stage: _Stage) -> Iterable[tuple[str, int]]:
            quantized = (weight for weight in stage.group.weights if is_quantized(weight, quant))
            return ((f"{weight.module} saved constants", size) for weight in quantized)

        return self._make(stages, constants)

    def _unfused(self, stages: list[_Stage]) -> _Blocks:
        """Experts' fused projections are copied apart, as the checkpoint has them: all layers', before any is written.

        transformers 5.17 core_model_loading.py `revert_weight_conversion`: `Chunk` makes each part contiguous.
        """
        scenario = self._scenario

        def projections(stage: _Stage) -> Iterable[tuple[str, int]]:
            for weight in stage.group.weights:
                count = len(fused_projections(scenario.architecture.family, weight))
                if count > 1:
                    part = loaded_element(weight, scenario) * weight.numel // count
                    yield from [(f"{weight.path} as saved", part)] * count

        return self._make(stages, projections)

    def _make(self, stages: list[_Stage], wanted: Callable[[_Stage], Iterable[tuple[str, int]]]) -> _Blocks:
        """Temporaries of every stage, by their labels and sizes."""
        made: _Blocks = []
        for stage in stages:
            with self._writer.repeat(stage.group.times):
                made.append((stage.group, [self._writer.temporary(label, size) for label, size in wanted(stage)]))
        return made

    def _free(self, held: _Blocks) -> None:
        for group, blocks in held:
            with self._writer.repeat(group.times):
                self._writer.free(*blocks)
