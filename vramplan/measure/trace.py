"""The trace engine: the code that `measure` runs, on fake tensors of full size, without a GPU and without weights."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import msgspec
import torch

from vramplan.allocator import Replay, replay
from vramplan.attention import Choice
from vramplan.catalog.gpus import Gpu, gpu
from vramplan.ledger import Basis, Component, Ledger
from vramplan.measure.cuda_rules import cuda_choices
from vramplan.measure.environment import library_versions
from vramplan.measure.fake import FakeTracker, fake_machine
from vramplan.predict.overheads import context_entries
from vramplan.predict.verdict import judge
from vramplan.record import Device, Parameters, Prediction
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline
from vramplan.training.build import transformers_config
from vramplan.training.materialize_fake import quantize_fake
from vramplan.training.run import set_up

#: The card that is meant when the scenario names none: kernels of compute capability 8.0.
REFERENCE_GPU = "a100-80gb"
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
    run = run_trace(scenario, device)
    if device == "cpu":
        return _prediction(scenario, device, run, run.timeline.ledger(BASIS))
    played = replay(run.timeline.parts)
    return replace(
        _prediction(scenario, device, run, played.ledger(BASIS), played),
        verdict=judge(scenario, run.timeline, played, budget=budget, reserve=reserve, engine="trace"),
    )


def _prediction(
    scenario: Scenario, device: Device, run: Trace, ledger: Ledger, played: Replay | None = None
) -> Prediction:
    entries = ledger.entries
    if device == "cuda":
        entries += context_entries(gpu(scenario.gpu) if scenario.gpu else None, ledger.phases)
    return Prediction(
        engine="trace",
        device=device,
        scenario=scenario,
        parameters=run.parameters,
        bits_per_parameter=run.bits_per_parameter,
        ledger=Ledger(entries, ledger.steady),
        reserved={mark.phase: mark.reserved for mark in played.marks} if played else {},
        libraries=library_versions(),
        warnings=tuple(choice.warning for choice in run.attention if choice.warning),
    )


def run_trace(scenario: Scenario, device: Device) -> Trace:
    """Load and two steps of the scenario on the fake machine."""
    card = (gpu(scenario.gpu or REFERENCE_GPU)) if device == "cuda" else None
    return trace_steps(msgspec.structs.replace(scenario, model=msgspec.structs.replace(scenario.model, path="")), card)


def trace_steps(scenario: Scenario, card: Gpu | None) -> Trace:
    """The trace of the scenario as it stands, every layer of it."""
    tracker = FakeTracker(vocab=int(transformers_config(scenario).get_text_config().vocab_size), gpu=card)
    with ExitStack() as stack:
        stack.enter_context(fake_machine())
        if card is not None:
            stack.enter_context(cuda_choices(card, tracker))
        stack.enter_context(tracker)
        foreach = None if card is None else True
        if card is not None:  # the real machine has no kernel for what the card's attention is
            stack.enter_context(mock.patch("vramplan.training.run.check_device"))
        step = set_up(scenario, torch.device("cpu"), tracker, quantize=quantize_fake, foreach=foreach)
        step.run()
        step.run()
    parameters = count_parameters(step.model)
    return Trace(tracker.timeline(), parameters, _bits(tracker, scenario, parameters), _choices(tracker))


def _choices(tracker: FakeTracker) -> tuple[Choice, ...]:
    return tuple(sorted(tracker.notes, key=str))


def _bits(tracker: FakeTracker, scenario: Scenario, parameters: Parameters) -> float:
    if not parameters.quantized:
        return 8.0 * scenario.dtype.bytes
    packed = (Component.WEIGHTS, Component.QUANT_STATE)
    return 8 * sum(block.bytes for block in tracker.live() if block.component in packed) / parameters.quantized


def count_parameters(model: Any) -> Parameters:
    """Parameters of the base model, how many of them are quantised, and how many are trained."""
    quantized = other = trainable = 0
    packed: set[int] = set()
    for module in model.modules():
        if hasattr(module, "source_cls"):
            quantized += module.in_features * module.out_features
            packed.add(id(module.weight))
    for name, parameter in model.named_parameters():
        trainable += parameter.numel() if parameter.requires_grad else 0
        if id(parameter) not in packed and "lora_" not in name:
            other += parameter.numel()
    return Parameters(total=quantized + other, quantized=quantized, trainable=trainable)
