"""What is on the device before a step from the second on begins: load phase, workspaces, optimizer states."""

from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple

from vramplan.allocator.rules import MIN_BLOCK
from vramplan.ledger import Component, Phase
from vramplan.optimizers import Family, optimizer
from vramplan.predict.adapters import Trainable, stepped, stepped_in_order
from vramplan.predict.keyed import Keyed
from vramplan.predict.loading import write_first_step, write_load
from vramplan.predict.optimizer import State, shared_states, states
from vramplan.predict.overheads import card, kept_by_steps
from vramplan.predict.step import settled_biases
from vramplan.predict.writer import Writer
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.timeline import Marks, Part, Timeline


class Resident(NamedTuple):
    """The parts of the timeline up to the first step that counts."""

    parts: tuple[Part, ...]
    managed: int
    """Bytes of optimizer states in CUDA managed memory, outside torch's allocator."""
    marks: Marks
    """The parts' high-water marks, each block rounded up to the device's granularity."""
    loaded: int
    """How many of the parts are loading; then come workspaces, and from `stateless` on the optimizer's states, unless
    it was made with them."""
    stateless: int


def granularity(device: Device) -> int:
    """What the device's allocator rounds every block up to."""
    return MIN_BLOCK if device == "cuda" else 1


def resident(scenario: Scenario, device: Device) -> Resident:
    """Load phase, then what a step from the second on finds: biases as the first step left them, workspaces, states."""
    biases = tuple(settled_biases(scenario, device).items())
    return _kept(Keyed((_key(scenario, device), biases), lambda: _resident(scenario, device)))


@lru_cache(maxsize=64)  # a sweep over batch and sequence asks for the same again and again
def _kept(wanted: Keyed[Resident]) -> Resident:
    return wanted.make()


def _key(scenario: Scenario, device: Device) -> Hashable:
    """All that decides the resident bytes: everything but batch, sequence and the like."""
    s = scenario
    target = card(s) if device == "cuda" else None  # a calibration may come between two questions about one card
    run = (s.method, s.quant, s.lora, s.optimizer, s.dtype, s.compute_dtype, s.load_from)
    return (s.model.key, device, s.stack.base, s.stack.upcast, s.stack.loss, *run, target, s.torch, s.checkpointing)


def _resident(scenario: Scenario, device: Device) -> Resident:
    """torch/optim/adagrad.py makes the states with the optimizer; all others make them in their first step."""
    writer, trains = Writer(), scenario.method.trains
    groups = write_load(writer, scenario, device)
    managed, at_once = 0, trains and optimizer(scenario.optimizer).family is Family.ADAGRAD
    if at_once:
        managed = _write_states(writer, scenario, device)
    writer.enter(Phase.FORWARD if trains else Phase.PREFILL)
    write_first_step(writer, groups, scenario, settled_biases(scenario, device))
    loaded = len(writer.parts)
    if device == "cuda":
        for workspace in kept_by_steps(scenario).values():
            writer.hold(workspace)
    stateless = len(writer.parts)
    if trains and not at_once:
        managed = _write_states(writer, scenario, device)
    parts = tuple(writer.parts)
    return Resident(parts, managed, Timeline(parts).marks(granularity(device)), loaded, stateless)


def _write_states(writer: Writer, scenario: Scenario, device: Device) -> int:
    """Write the optimizer's states; returns the bytes of those in managed memory."""
    trainer = scenario.stack.trainer
    for shared in shared_states(scenario.optimizer, stepped(scenario), device, trainer=trainer):
        _hold_state(writer, shared)
    managed = 0
    for times, tensors in stepped_in_order(scenario):
        with writer.repeat(times):
            for tensor in tensors:
                managed += times * _write_tensor(writer, tensor, scenario, device, trainer=trainer)
    return managed


def _write_tensor(writer: Writer, tensor: Trainable, scenario: Scenario, device: Device, *, trainer: bool) -> int:
    managed = 0
    for state in states(scenario.optimizer, tensor, device, trainer=trainer):
        if state.managed:
            managed += state.bytes
        else:
            _hold_state(writer, state, tensor.label)
    return managed


def _hold_state(writer: Writer, state: State, owner: str = "") -> None:
    writer.alloc(Component.OPTIMIZER, f"{state.label} {owner}".rstrip(), state.bytes)
