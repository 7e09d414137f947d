"""The trace engine: the code that `measure` runs, on fake tensors of full size, without a GPU and without weights."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from traceback import walk_tb
from typing import Any

import msgspec
import torch

from vramplan.architecture.own_torch import own_torch
from vramplan.attention import Choice
from vramplan.catalog.gpus import REFERENCE_GPU, Gpu, gpu
from vramplan.errors import CannotRun, VramplanError, first_line
from vramplan.ledger import Basis, Component
from vramplan.measure.cpu import cpu_rules
from vramplan.measure.cuda_rules import cuda_choices
from vramplan.measure.depth import DepthMismatch, Depths, find_depths, stretch
from vramplan.measure.environment import library_versions
from vramplan.measure.fake import FakeTracker, fake_machine, meta_skeleton
from vramplan.measure.fake_evaluation import evaluating
from vramplan.measure.fake_merge import merging
from vramplan.measure.fused_head import fused_head
from vramplan.measure.idle_liger import idle_liger
from vramplan.measure.tracker import Tracker
from vramplan.predict.footprint import footprint
from vramplan.predict.paging import paging
from vramplan.predict.quantization import quantized_parameters
from vramplan.predict.replayable import replayable
from vramplan.predict.saved_modules import check_saved
from vramplan.predict.warnings import scenario_warnings
from vramplan.record import Device, Parameters, Prediction
from vramplan.scenario import Method, Scenario
from vramplan.stacks import LossKernel
from vramplan.timeline import Timeline
from vramplan.training.adapter_files import write_adapters
from vramplan.training.build import Making, logits_width, modeling_of, transformers_config
from vramplan.training.counting import count_parameters, quantized_bytes
from vramplan.training.load_fake import load_fake
from vramplan.training.materialize import materialize
from vramplan.training.materialize_fake import quantize_fake
from vramplan.training.meter import Meter
from vramplan.training.run import set_up

_LOG = logging.getLogger(__name__)
BASIS: Mapping[Component, Basis] = dict.fromkeys(Component, Basis.TRACED)


@dataclass(frozen=True)
class Trace:
    """A run on fake tensors."""

    timeline: Timeline
    """Everything from load to the end of the second step."""
    parameters: Parameters
    bits_per_parameter: float
    """Of the quantised layers: packed weights and block constants; of the linear layers, when none is quantised."""
    attention: tuple[Choice, ...]
    """The attention kernels that were taken."""


def trace(scenario: Scenario, *, device: Device = "cuda", budget: int | None = None, reserve: int = 0) -> Prediction:
    """What `scenario` needs on `device`, as the libraries themselves allocate it.

    On cuda the timeline is replayed through the caching allocator. The verdict is against `budget`, or the card's
    capacity less `reserve`; without card and budget there is none.
    """
    return conclude(scenario, device, run_trace(scenario, device), budget=budget, reserve=reserve)


def conclude(
    scenario: Scenario, device: Device, run: Trace, *, budget: int | None = None, reserve: int = 0
) -> Prediction:
    """The prediction that a trace amounts to."""
    program = partial(replayable, scenario, run.timeline)
    found = footprint(scenario, device, run.timeline, program, BASIS, engine="trace", budget=budget, reserve=reserve)
    return Prediction(
        engine="trace",
        device=device,
        scenario=scenario,
        parameters=run.parameters,
        bits_per_parameter=run.bits_per_parameter,
        ledger=found.ledger,
        reserved=found.reserved,
        attention=tuple(choice.kernel.value for choice in run.attention),
        libraries=library_versions(scenario),
        warnings=scenario_warnings(scenario, paging(scenario, device).managed, device, run.attention),
        verdict=found.verdict,
    )


def run_trace(scenario: Scenario, device: Device) -> Trace:
    """Load and two steps of the scenario on the fake machine; repeated layers are run a few times and written often.

    CannotRun where the libraries' own code stops on the way. Parts of the libraries are replaced meanwhile: a second
    trace waits for the first, and no other thread should use them.
    """
    check_saved(scenario)  # peft 0.21.2 passes over a name in modules_to_save that no module has
    try:
        with own_torch(), _quiet():
            return _run_trace(scenario, device)
    except VramplanError:
        raise
    except Exception as error:
        if not scenario.architecture.facts.derived and _is_ours(error):
            raise
        raise CannotRun(
            f"the libraries cannot run this step of '{scenario.architecture.family}' on fake tensors: "
            f"{first_line(error)}",
            hint="the real step may stop there too: try it small with `vramplan measure`, or change method or targets",
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether it was raised by this package's code, and not by a library that it runs."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("vramplan.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the libraries log what went wrong alone: the rest is meant for whoever trains."""
    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "transformers", "liger_kernel")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run_trace(scenario: Scenario, device: Device) -> Trace:
    card = gpu(scenario.gpu or REFERENCE_GPU) if device == "cuda" else None
    whole = msgspec.structs.replace(scenario, model=msgspec.structs.replace(scenario.model, path=""))
    # A merge calls no layer, so nothing tells which one an operation belongs to; it has few.
    depths = None if scenario.method is Method.MERGE else find_depths(scenario.architecture.layers)
    for shorter in () if depths is None else (depths, depths.with_longer_tail):
        try:
            return _stretched(whole, shorter, card)
        except DepthMismatch as mismatch:
            _LOG.info("the layers do not repeat exactly (%s): more are run", mismatch)
    run = run_steps(whole, card)
    return Trace(run.tracker.timeline(), run.parameters, run.bits(scenario), run.attention)


def _stretched(scenario: Scenario, depths: Depths, card: Gpu | None) -> Trace:
    without = run_steps(shortened(scenario, depths.without), card)
    with_one = run_steps(shortened(scenario, depths.with_one), card)
    timeline = stretch(without.tracker, with_one.tracker, depths)
    whole = with_one.plus(without, depths.times - 1)
    return Trace(timeline, whole.parameters, whole.bits(scenario), with_one.attention)


def shortened(scenario: Scenario, layers: list[int]) -> Scenario:
    """The scenario with a model of these layers only: every list in the configuration with one entry per layer is
    cut."""
    config = transformers_config(scenario)
    depth = config.num_hidden_layers
    mapping = config.to_dict()
    for key, value in mapping.items():
        if isinstance(value, list) and len(value) == depth:
            mapping[key] = [value[layer] for layer in layers]
    mapping[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(layers)
    return msgspec.structs.replace(scenario, model=msgspec.structs.replace(scenario.model, config=mapping))


@dataclass(frozen=True)
class Run:
    """What a run on fake tensors leaves behind."""

    tracker: FakeTracker
    parameters: Parameters
    packed: int
    """Bytes of quantised weights and of their constants."""

    @property
    def attention(self) -> tuple[Choice, ...]:
        """The attention kernels that were taken."""
        return tuple(sorted(self.tracker.notes, key=str))

    def plus(self, smaller: "Run", times: int) -> "Run":
        """This run with what it has more than `smaller` added `times` times."""
        more = {
            name: now + times * (now - then)
            for name in Parameters.__slots__
            for now, then in [(getattr(self.parameters, name), getattr(smaller.parameters, name))]
        }
        return Run(self.tracker, Parameters(**more), self.packed + times * (self.packed - smaller.packed))

    def bits(self, scenario: Scenario) -> float:
        """Bits per quantised parameter; of the dtype when none is quantised."""
        if not self.parameters.quantized:
            return 8.0 * scenario.dtype.bytes
        return 8 * self.packed / self.parameters.quantized


def run_steps(scenario: Scenario, card: Gpu | None) -> Run:
    """Load and two steps of the scenario, every layer of it, on fake tensors that stand for the card or for a CPU."""
    merges, on_card = scenario.method is Method.MERGE, card is not None
    rules = None if on_card else cpu_rules(scenario.method)
    tracker = FakeTracker(
        vocab=logits_width(scenario), gpu=card, rules=rules, padding=scenario.padding, release=scenario.torch
    )
    with ExitStack() as stack:
        stack.enter_context(fake_machine())
        if card is not None:
            stack.enter_context(_as_on(card, scenario, tracker))
        stack.enter_context(tracker.attaching())
        stack.enter_context(tracker)
        if scenario.quant.double and quantized_parameters(scenario.architecture, scenario.quant):
            name_code_map(tracker)
        stack.enter_context(evaluating(tracker, card=on_card))
        write = stack.enter_context(merging(tracker, card=on_card)) if merges else write_adapters
        making = Making(meta_skeleton, _filling(scenario, card))
        work = set_up(scenario, torch.device("cpu"), tracker, making=making, write=write, as_card=on_card)
        parameters, packed = count_parameters(work.model), quantized_bytes(work.model)
        work.run()
        if not merges:  # a second one would load again
            work.run()
    return Run(tracker, parameters, packed)


@contextmanager
def _as_on(card: Gpu, scenario: Scenario, tracker: Tracker) -> Iterator[None]:
    """Inside, the libraries that the scenario runs take the paths that they take on the card."""
    with ExitStack() as stack:
        stack.enter_context(cuda_choices(card, tracker))
        if scenario.stack.loss is LossKernel.TILED:
            stack.enter_context(fused_head())
        if scenario.runs_liger:
            stack.enter_context(idle_liger(card, modeling_of(scenario)))
        yield


def _filling(scenario: Scenario, card: Gpu | None) -> Callable[[Any, Scenario, torch.device, Meter], None]:
    """How the skeleton gets its fake values: as `from_pretrained` gives them, or module by module."""
    if scenario.arrives_by_tensor:
        return partial(load_fake, capacity=0 if card is None else card.capacity)
    return partial(materialize, quantize=partial(quantize_fake, card=card is not None))


def name_code_map(tracker: Tracker) -> None:
    """Make bitsandbytes' 256-entry code map, which every matrix's constants copy and the process keeps one of."""
    from bitsandbytes import functional

    functional.name2qmap["dynamic"] = functional.create_dynamic_map()
    tracker.name(functional.name2qmap["dynamic"], Component.QUANT_STATE, "code map of the process")
