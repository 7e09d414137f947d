"""What to change so that it fits: the shortest list of changes, cheapest in training terms first."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from vramplan.errors import VramplanError
from vramplan.plan.limit import Probe
from vramplan.predict.changes import CHANGES, Change
from vramplan.predict.forecast import forecast
from vramplan.record import Fit, Verdict
from vramplan.scenario import Scenario

Fits = Callable[[Scenario], bool]


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
    """The lists of changes, of those in `choice`, that make `scenario` fit; empty when no list does, or none must.

    The recommended one stands first: the shortest list of changes that keep the training what it is, if there is one.
    Then, when it is shorter or the first does not exist, the shortest of all changes. Of equally short lists the one
    whose costliest change is cheapest wins, and before it one after which the run fits without being tight. A run that
    fits but is tight shall fit without that word.
    """
    now = probe.verdict(scenario)
    if now.word is Fit.FITS:
        return ()
    fits = probe.fits_surely if now.fits else probe.fits
    found: list[tuple[Change, ...]] = []
    for changes in ([change for change in choice if change.keeps_training], choice):
        longest = len(found[0]) - 1 if found else len(changes)
        shortest = shortest_list(scenario, changes, fits, longest)
        if shortest and not now.fits:  # else it fits surely already
            shortest = shortest_list(scenario, changes, probe.fits_surely, len(shortest)) or shortest
        if shortest:
            found.append(shortest)
    return tuple(_advice(scenario, changes, probe, fits) for changes in found)


def shortest_list(scenario: Scenario, changes: Sequence[Change], fits: Fits, longest: int) -> tuple[Change, ...]:
    """The shortest list of `changes`, each at its strongest, that fits; empty when none up to `longest` does."""
    useful = [change for change in changes if _predictable(scenario, change)]
    if not any(fits(everything) for everything in _furthest(scenario, useful)):  # then no part of the list works either
        return ()
    for length in range(1, min(longest, len(useful)) + 1):
        for chosen in sorted(combinations(range(len(useful)), length), key=lambda indices: indices[::-1]):
            changed = _changed(scenario, [useful[i] for i in chosen])
            if changed is not None and fits(changed):
                return tuple(useful[i] for i in chosen)
    return ()


def _predictable(scenario: Scenario, change: Change) -> bool:
    """Whether the change applies and leads to what can be predicted."""
    variants = change.variants(scenario)
    if not variants:
        return False
    try:
        forecast(variants[-1], "cuda")
    except VramplanError:
        return False
    return True


def _changed(scenario: Scenario, changes: Iterable[Change]) -> Scenario | None:
    """The scenario with every change at its strongest; None when one does not apply after the others."""
    for change in changes:
        variants = change.variants(scenario)
        if not variants:
            return None
        scenario = variants[-1]
    return scenario


def _furthest(scenario: Scenario, changes: Sequence[Change]) -> Iterator[Scenario]:
    """The scenario with all changes, from the first on and from the last: one can make another needless, or bar it."""
    for order in (changes, changes[::-1]):
        changed = scenario
        for change in order:
            changed = (change.variants(changed) or (changed,))[-1]
        yield changed


def _advice(scenario: Scenario, changes: tuple[Change, ...], probe: Probe, fits: Fits) -> Advice:
    """The list at degrees that fit, and fit surely when the strongest do, with what each change saves."""
    strongest = [-1] * len(changes)
    if probe.fits_surely(_applied(scenario, changes, strongest)[-1]):
        fits = probe.fits_surely
    after = _applied(scenario, changes, _mildest(scenario, changes, fits))
    return Advice(tuple(_steps(scenario, changes, after, probe)), probe.verdict(after[-1]))


def _mildest(scenario: Scenario, changes: Sequence[Change], fits: Fits) -> list[int]:
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
