"""The words that flags take: written beside the flags, so that no command waits for the modules that they mean."""

from collections.abc import Iterable

import pytest

from vramplan import api
from vramplan.commands import data_flags, flags, plan, quant
from vramplan.dataset.outlook import Sampler
from vramplan.dataset.packing import Packing
from vramplan.plan.goals import Goal
from vramplan.quant.formats import Kind


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (flags.DEVICES, api.DEVICES),
        (flags.ENGINES, api.ENGINES),
        (plan.GOALS, Goal),
        (data_flags.SAMPLERS, Sampler),
        (data_flags.PACKINGS, Packing),
        (quant.KINDS, Kind),
    ],
)
def test_a_flag_takes_every_word_that_means_something(written: tuple[str, ...], meant: Iterable[str]) -> None:
    assert sorted(written) == sorted(meant)
