"""Changes to a scenario that save what a run lacked: each alone, and the shortest lists of them."""

from dataclasses import asdict, dataclass
from typing import Any

from vramplan.errors import VramplanError
from vramplan.oom.aim import Aim
from vramplan.oom.remedies import Judgement
from vramplan.plan.advice import Advice, advise
from vramplan.predict.changes import CHANGES, Change, changes_but
from vramplan.scenario import Scenario

#: The changes but for expandable segments.
_OTHERS = changes_but({"expandable-segments"})


@dataclass(frozen=True, slots=True)
class Saving:
    """One change to the scenario."""

    name: str
    label: str
    saves: int
    """Bytes of peak allocated, by prediction; of loading's peak where that failed."""
    enough: bool
    """Whether that is no less than what was lacking, and leaves room for the allocator's segments."""
    cost: str

    @property
    def judgement(self) -> Judgement:
        """The same as of a remedy."""
        return Judgement.YES if self.enough else Judgement.NO

    def to_json(self) -> dict[str, Any]:
        """The element of the answer's `savings`: its fields."""
        return asdict(self)


def savings(scenario: Scenario, aim: Aim) -> list[Saving]:
    """Every change that lowers the predicted peak, at its mildest degree that is enough, else at its strongest."""
    found = []
    for change in CHANGES:
        variants = change.variants(scenario)
        if variants and (saving := _saving(scenario, change, variants, aim)) is not None:
            found.append(saving)
    return sorted(found, key=lambda saving: not saving.enough)


def _saving(scenario: Scenario, change: Change, variants: tuple[Scenario, ...], aim: Aim) -> Saving | None:
    """The mildest degree that is enough, else the strongest; None when nothing is saved."""
    try:
        low, high = 0, len(variants) - 1
        if suffices := aim.fits(variants[high]):
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if aim.fits(variants[middle]) else (middle + 1, high)
        saves = aim.allocated(scenario) - aim.allocated(variants[high])
    except VramplanError:  # the change leads out of what can be predicted
        return None
    if saves <= 0:
        return None
    return Saving(change.name, change.label(scenario, variants[high]), saves, suffices, change.cost)


def lists(scenario: Scenario, aim: Aim) -> tuple[Advice, ...]:
    """The lists of changes that are enough, the recommended one first.

    Expandable segments alone are none of them: they are a remedy, judged by what was in no tensor. They come beside
    others where nothing else is enough, or nothing else that keeps the training.
    """
    found = advise(scenario, aim, _OTHERS)
    if any(advice.keeps_training for advice in found):
        return found
    beside = tuple(advice for advice in advise(scenario, aim) if len(advice.steps) > 1)
    return beside if any(advice.keeps_training for advice in beside) else found or beside
