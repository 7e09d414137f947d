"""A failure while the model was loaded: loading alone counts then, and it may be another one than the scenario's."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from vramplan.allocator import Program, prepare
from vramplan.ledger import Phase
from vramplan.oom.aim import Aim
from vramplan.oom.printed import Printed
from vramplan.oom.stack_rules import QUANTISED, Purpose
from vramplan.predict.forecast import forecast, ledger
from vramplan.predict.verdict import ERROR
from vramplan.record import Prediction
from vramplan.scenario import Scenario
from vramplan.timeline import Enter, Part, Timeline


@dataclass(frozen=True, slots=True)
class LoadingAim(Aim):
    """Asks the same of a run's loading alone."""

    def allocated(self, scenario: Scenario) -> int:
        """Bytes of all tensors at the highest moment of loading."""
        return ledger(scenario).allocated(Phase.LOAD)

    def _program(self, scenario: Scenario) -> Program:
        run = forecast(scenario, "cuda")
        return prepare(loading_of(run.timeline), rules=run.rules)


def loading_of(timeline: Timeline) -> Iterator[Part]:
    """The parts up to the end of loading."""
    return takewhile(lambda part: not isinstance(part, Enter) or part.phase is Phase.LOAD, timeline.parts)


@dataclass(frozen=True, slots=True)
class Unquantised:
    """All weights of a model in one width, none of them quantised."""

    bits: int
    bytes: int


@dataclass(frozen=True, slots=True)
class OtherLoading:
    """A model that was not loaded as the scenario says."""

    expected: int
    """Bytes of all tensors at the highest moment of loading as the scenario says: less than was held."""
    likely: Unquantised | None
    """How it may have been loaded; None where that takes too little as well, or the stack shows it being quantised."""

    def to_json(self) -> dict[str, Any]:
        """The `other_loading` object."""
        likely = {"bits": self.likely.bits, "bytes": self.likely.bytes} if self.likely else None
        return {"expected": self.expected, "likely": likely}


def other_loading(prediction: Prediction, observed: Printed, purpose: Purpose) -> OtherLoading | None:
    """How else the model was loaded, where more was `observed` while it was than the prediction's error explains."""
    expected = prediction.ledger.allocated(Phase.LOAD)
    held = int(observed.low * (1 + ERROR["analytic"].low))
    if held <= expected:
        return None
    if purpose == QUANTISED:
        return OtherLoading(expected, None)
    ways = (Unquantised(bits, prediction.parameters.total * bits // 8) for bits in (16, 32))
    return OtherLoading(expected, next((way for way in ways if way.bytes >= max(held, expected)), None))
