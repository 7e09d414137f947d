"""What the tests that compare two training loops share."""

import pytest
from real_trainer import run_loop
from tiny_models import tiny

from vramplan.training.step import TrainingStep


@pytest.fixture(scope="session")
def tables_are_made() -> None:
    """Makes a run before those that are compared: tables that a process makes once, 80 bytes, belong to the first."""
    run_loop(tiny(), TrainingStep)
