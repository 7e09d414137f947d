"""What to change so that it fits: the shortest list of changes, cheapest in training terms first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from vramplan.plan.limit import Probe
from vramplan.plan.shortest_list import Fits, applied, furthest, shortest_list
from vramplan.predict.changes import CHANGES, Change
from vramplan.record import Fit, Verdict
from vramplan.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the list, made after those before it."""

    change: Change
    label: str
    """The change, as people say it."""
    saves: int
    """Bytes less on the card than before it, by prediction."""
    total: int
    """Bytes that the process then holds on the card."""
    scenario: Scenario
    """With this change and those before it."""

    def to_json(self) -> dict[str, Any]:
        """The element of an advice's `changes`."""
        return {
            "name": self.change.name,
            "label": self.label,
            "saves": self.saves,
            "total": self.total,
            "cost": self.change.cost,
        }


@dataclass(frozen=True, slots=True)
class Advice:
    """A list of changes after which the run fits."""

    steps: tuple[Step, ...]
    verdict: Verdict
    """Of the changed scenario."""

    @property
    def scenario(self) -> Scenario:
        """The scenario that fits."""
        return self.steps[-1].scenario

    @property
    def keeps_training(self) -> bool:
        """Whether what is learned stays what it was."""
        return all(step.change.keeps_training for step in self.steps)

    @property
    def kept(self) -> str:
        """What stays what it was, in words."""
        if self.keeps_training:
            return "with the same data, tokens per step and trained parameters"
        return "with another training"

    def to_json(self) -> dict[str, Any]:
        """The element of the `advice` array."""
        return {
            "keeps_training": self.keeps_training,
            "changes": [step.to_json() for step in self.steps],
            "verdict": self.verdict.to_json(),
            "scenario": self.scenario.to_mapping(),
        }


def advise(scenario: Scenario, probe: Probe, choice: Sequence[Change] = CHANGES) -> tuple[Advice, ...]:
    """The lists of changes, of those in `choice`, that make `scenario` fit; empty when none does, or it fits as it is.

    The recommended one stands first: the shortest list of changes that keep the training what it is; where none is
    enough, the shortest of all changes with as many of them as let it change the training less. Then the shortest of
    all changes, when it is shorter. Of equally short lists the one whose costliest change is cheapest wins, and before
    it one after which the run fits without being tight. A run that fits but is tight shall fit without that word.
    """
    now = probe.verdict(scenario)
    if now.word is Fit.FITS:
        return ()
    surely = _asked(probe, Fit.FITS)
    fits = surely if now.fits else _asked(probe, Fit.TIGHT)
    keeping = [change for change in choice if change.keeps_training]
    best = _shortest(scenario, keeping, fits, surely, len(keeping))
    shorter = _shortest(scenario, choice, fits, surely, len(best) - 1 if best else len(choice))
    if not best:
        best = _gentler(scenario, shorter, keeping, fits) or shorter
    lists = (best, shorter) if len(shorter) < len(best) else (best,)
    return tuple(_advice(scenario, changes, probe, fits.exactly) for changes in lists if changes)


def _asked(probe: Probe, at_least: Fit) -> Fits:
    return Fits(partial(probe.fits, at_least=at_least), partial(probe.seems_to_fit, at_least=at_least))


def _shortest(
    scenario: Scenario, changes: Sequence[Change], fits: Fits, surely: Fits, longest: int
) -> tuple[Change, ...]:
    """The shortest list that fits, one of the same length that fits surely where there is one; empty without any."""
    found = shortest_list(scenario, changes, fits, longest)
    changed = applied(scenario, found)
    if not found or changed is None or surely.exactly(changed):
        return found
    return shortest_list(scenario, changes, surely, len(found)) or found


def _gentler(
    scenario: Scenario, changes: Sequence[Change], keeping: Sequence[Change], fits: Fits
) -> tuple[Change, ...]:
    """The list `changes`, with its changes of the training made as mild as changes that keep it can let them be.

    It consists of those changes of the training, and before them the fewest of `keeping` that let them be as mild as
    all of `keeping` together would. Empty where they do not apply beside `keeping`, or nothing of that helps.
    """
    others = [change for change in changes if not change.keeps_training]
    kept = next(furthest(scenario, keeping))
    strongest = applied(kept, others)
    if not others or strongest is None or not fits.exactly(strongest) or applied(scenario, others) is None:
        return ()
    milder = _applied(scenario, others, _mildest(kept, others, fits.exactly))[-1]
    helping = shortest_list(milder, keeping, fits, len(keeping))
    return (*helping, *others) if helping else ()


def _advice(scenario: Scenario, changes: tuple[Change, ...], probe: Probe, fits: Callable[[Scenario], bool]) -> Advice:
    """The list at degrees that fit, and fit surely when the strongest do, with what each change saves."""
    strongest = [-1] * len(changes)
    surely = _asked(probe, Fit.FITS).exactly
    if surely(_applied(scenario, changes, strongest)[-1]):
        fits = surely
    after = _applied(scenario, changes, _mildest(scenario, changes, fits))
    return Advice(tuple(_steps(scenario, changes, after, probe)), probe.verdict(after[-1]))


def _mildest(scenario: Scenario, changes: Sequence[Change], fits: Callable[[Scenario], bool]) -> list[int]:
    """The variant of each change: no stronger than needed, the costliest (last) change relaxed first."""
    before = [scenario, *_applied(scenario, changes, [-1] * len(changes))]
    degrees = [len(change.variants(then)) - 1 for change, then in zip(changes, before, strict=False)]
    for i in reversed(range(len(changes))):
        low = 0
        while low < degrees[i]:  # what `degrees` says is known to fit
            middle = (low + degrees[i]) // 2
            if fits(_applied(scenario, changes, [*degrees[:i], middle, *degrees[i + 1 :]])[-1]):
                degrees[i] = middle
            else:
                low = middle + 1
    return degrees


def _applied(scenario: Scenario, changes: Sequence[Change], degrees: Sequence[int]) -> list[Scenario]:
    """The scenario after each change."""
    after = []
    for change, degree in zip(changes, degrees, strict=True):
        scenario = change.variants(scenario)[degree]
        after.append(scenario)
    return after


def _steps(scenario: Scenario, changes: Sequence[Change], after: Sequence[Scenario], probe: Probe) -> Iterator[Step]:
    held = _held(scenario, probe)
    for change, before, changed in zip(changes, (scenario, *after), after, strict=False):
        total = _held(changed, probe)
        yield Step(change, change.label(before, changed), held - total, total, changed)
        held = total


def _held(scenario: Scenario, probe: Probe) -> int:
    """Bytes that the process holds on the card, as `predict` says it."""
    return probe.verdict(scenario).needed
