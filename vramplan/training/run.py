"""A scenario made ready to run: model, preparation, optimizer, loop."""

from typing import Protocol

import torch
from torch import Tensor

from vramplan.errors import CannotRun
from vramplan.ledger import Phase
from vramplan.scenario import Method, Scenario
from vramplan.training.adapter_files import WriteAdapters, write_adapters
from vramplan.training.build import BY_LIBRARIES, Making, build_model
from vramplan.training.inference import Generation
from vramplan.training.loop import TrainingLoop
from vramplan.training.loss import trl_trainer
from vramplan.training.merge import Merging
from vramplan.training.meter import Meter
from vramplan.training.optimizers import create_optimizer
from vramplan.training.prepare import prepare
from vramplan.training.step import TrainingStep


class Workload(Protocol):
    """What a scenario does again and again once it is loaded: a training step, a generation, or a merge."""

    model: torch.nn.Module
    meter: Meter
    """Who watches; may be replaced between two runs."""

    def run(self) -> Tensor:
        """Do it once: the loss of a step, the tokens of a generation, nothing of a merge."""

    def release(self) -> bool:
        """Drop what is held from one run into the next; returns whether anything was held."""


def set_up(
    scenario: Scenario,
    device: torch.device,
    meter: Meter,
    *,
    making: Making = BY_LIBRARIES,
    write: WriteAdapters = write_adapters,
    as_card: bool = False,
    real_trainer: bool = False,
) -> Workload:
    """Everything of the load phase: build, quantise, prepare, attach adapters, create the optimizer.

    A run on fake tensors has its own ways of `making` the model and to `write` adapters; `as_card`: its tensors stand
    for a GPU's, whatever `device` says. With `real_trainer` transformers' Trainer makes the steps of its stack wherever
    it can, and our own loop those that it cannot.
    """
    if not as_card:  # which has a kernel for every attention
        check_device(scenario, device)
    if scenario.method is Method.MERGE:
        return Merging(scenario, device, meter, making=making, write=write)
    meter.enter(Phase.LOAD)
    model = build_model(scenario, device, meter, making=making)
    if not scenario.method.trains:
        return Generation(model, scenario, device, meter)
    trained = prepare(model, scenario, meter)
    if real_trainer:
        return _loop(trained, scenario, device, meter)
    foreach = True if as_card else None
    optimizer = create_optimizer(trained, scenario, foreach=foreach)
    return TrainingStep(trained, optimizer, scenario, device, meter, foreach=foreach)


def _loop(model: torch.nn.Module, scenario: Scenario, device: torch.device, meter: Meter) -> TrainingLoop:
    """The Trainer's loop, or ours and why."""
    from vramplan.training.trainer_step import TrainerStep, why_not

    reason = why_not(scenario, device)
    if not reason and scenario.stack.trl:
        trl_trainer()
        from vramplan.training.trl_step import DpoStep, TrlStep

        kind = DpoStep if scenario.stack.prefers else TrlStep
        return kind(model, scenario, device, meter)
    if not reason:
        return TrainerStep(model, scenario, device, meter)
    step = TrainingStep(model, create_optimizer(model, scenario), scenario, device, meter)
    step.loop = f"{step.loop}, because {reason}"
    return step


def check_device(scenario: Scenario, device: torch.device) -> None:
    """Refuse what cannot be run at all, or not on this device."""
    if device.type == "cpu" and scenario.attention in ("sdpa:efficient", "sdpa:cudnn", "flash_attention_2"):
        raise CannotRun(f"attention: {scenario.attention} has no CPU kernel", hint="use sdpa or eager on the CPU")
    if device.type == "cpu" and scenario.runs_liger:
        key = "stack.kernels" if scenario.stack.kernels else "stack.loss"
        raise CannotRun(
            f"{key}: Liger's kernels are Triton's, which has none for the CPU",
            hint="on the CPU set kernels: torch and loss: torch or chunked",
        )
