"""What a changed run has to come to after a shortage: fewer bytes of tensors, and a fit in segments around them."""

from dataclasses import dataclass, field, replace

from vramplan.plan.limit import Probe
from vramplan.record import Fit, Verdict
from vramplan.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Aim(Probe):
    """Asks whether changed runs are enough: their tensors take no more than `most`, and they fit the limit."""

    most: int = field(kw_only=True)
    """Bytes."""

    def verdict(self, scenario: Scenario) -> Verdict:
        """What `predict` says of the limit; where tensors take too much, that as much is lacking of the budget."""
        found, spare = Probe.verdict(self, scenario), self.most - self.allocated(scenario)
        if spare >= 0 or spare >= found.margin:
            return found
        return replace(found, word=Fit.NO, margin=spare, budget=found.needed + spare)

    def _fits(self, scenario: Scenario, at_least: Fit, *, replayed: bool) -> bool:
        return self.allocated(scenario) <= self.most and Probe._fits(self, scenario, at_least, replayed=replayed)
