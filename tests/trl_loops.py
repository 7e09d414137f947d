"""TRL's own trainers beside our own loop: what the tests of both ask."""

from collections.abc import Sequence

import pytest
from real_trainer import Run
from training_phases import TRAINING_PHASES

from vramplan.ledger import STATIC_COMPONENTS, Component, Phase

#: Bytes of the numbers that only one of the two holds: counts and metrics of the trainer's.
NUMBERS = 64


def check_memory(real: Run, own: Run, *, samples: int, compared: Sequence[Phase]) -> None:
    """Equal but for numbers and, while loading, the trainer's samples; component by component in `compared`."""
    for phase in (Phase.LOAD, *TRAINING_PHASES):
        apart = samples if phase is Phase.LOAD else NUMBERS
        assert own.ledger.allocated(phase) == pytest.approx(real.ledger.allocated(phase), abs=apart), phase
    for phase in compared:
        for component in (*STATIC_COMPONENTS, Component.GRADIENTS):
            assert own.ledger.bytes(phase, component) == real.ledger.bytes(phase, component), (phase, component)
