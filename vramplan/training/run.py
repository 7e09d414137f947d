"""A scenario made ready to step: model, preparation, optimizer, loop."""

import torch

from vramplan.errors import CannotRun
from vramplan.ledger import Phase
from vramplan.scenario import Scenario
from vramplan.training.build import Quantize, build_model
from vramplan.training.meter import Meter
from vramplan.training.optimizers import create_optimizer
from vramplan.training.prepare import prepare
from vramplan.training.step import TrainingStep


def set_up(
    scenario: Scenario,
    device: torch.device,
    meter: Meter,
    *,
    quantize: Quantize | None = None,
    foreach: bool | None = None,
) -> TrainingStep:
    """Build, quantise, prepare, attach adapters, create the optimizer: everything of the load phase.

    `quantize` and `foreach` are for a run on fake tensors that stands for another device.
    """
    check_device(scenario, device)
    model = build_model(scenario, device, meter, quantize=quantize)
    trained = prepare(model, scenario, meter)
    optimizer = create_optimizer(trained, scenario, foreach=foreach)
    step = TrainingStep(trained, optimizer, scenario, device, meter, foreach=foreach)
    meter.enter(Phase.LOAD)
    return step


def check_device(scenario: Scenario, device: torch.device) -> None:
    """Refuse what the libraries cannot do on this device."""
    if device.type == "cpu" and scenario.attention in ("sdpa:efficient", "sdpa:cudnn", "flash_attention_2"):
        raise CannotRun(f"attention: {scenario.attention} has no CPU kernel", hint="use sdpa or eager on the CPU")
