"""The shortest list of changes after which a run fits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from vramplan.errors import VramplanError
from vramplan.predict.changes import Change
from vramplan.predict.forecast import forecast
from vramplan.scenario import Scenario


class Fits(NamedTuple):
    """How a run is asked whether it fits."""

    exactly: Callable[[Scenario], bool]
    """By replay."""
    seemingly: Callable[[Scenario], bool]
    """The same, but what leaves much room free is not replayed."""


def shortest_list(scenario: Scenario, changes: Sequence[Change], fits: Fits, longest: int) -> tuple[Change, ...]:
    """The shortest list of `changes`, each at its strongest, that fits; empty when none up to `longest` does.

    Of equally short ones the one whose last change stands first in `changes`.

    A run that does not fit does not with fewer changes either. So what a failing list leaves out, once it has been
    lengthened as far as it still fails, is a set of which every list that fits has one. The shortest lists are the
    smallest that meet all such sets (R. Reiter, A Theory of Diagnosis from First Principles, 1987), and some ten sets
    tell which these are, where the lists of up to five of twenty changes are 21,699.
    """
    useful = [change for change in changes if _predictable(scenario, change)]

    def enough(chosen: Iterable[int]) -> bool:
        changed = furthest(scenario, [useful[i] for i in sorted(chosen)])
        return any(fits.seemingly(one) for one in changed)

    every = frozenset(range(len(useful)))
    if not enough(every):
        return ()
    sets: list[frozenset[int]] = []
    tried: set[tuple[int, ...]] = set()
    while chosen := next((one for one in _meeting(sets, len(useful), longest) if one not in tried), ()):
        tried.add(chosen)
        found = tuple(useful[i] for i in chosen)
        changed = applied(scenario, found)
        if changed is not None and fits.exactly(changed):
            return found
        failing = frozenset(chosen)
        if enough(failing):  # in another order, or but for a replay
            continue
        for i in reversed(range(len(useful))):
            if i not in failing and not enough(failing | {i}):
                failing |= {i}
        sets.append(every - failing)
    return ()


def _meeting(sets: Sequence[frozenset[int]], below: int, longest: int) -> Iterator[tuple[int, ...]]:
    """Lists of numbers `below` one that have a number of each set, the shortest first.

    Of equally short ones first those without the highest numbers.
    """
    for length in range(1, min(longest, below) + 1):
        yield from _of_length(length, sets, below)


def _of_length(length: int, sets: Sequence[frozenset[int]], below: int) -> Iterator[tuple[int, ...]]:
    if not length:
        yield from () if sets else ((),)
    elif all(min(one) < below for one in sets):  # else nothing that is left is in one of them
        for last in range(length - 1, below):
            others = [one for one in sets if last not in one]
            yield from ((*first, last) for first in _of_length(length - 1, others, last))


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


def applied(scenario: Scenario, changes: Iterable[Change]) -> Scenario | None:
    """The scenario with every change at its strongest; None when one does not apply after the others."""
    for change in changes:
        variants = change.variants(scenario)
        if not variants:
            return None
        scenario = variants[-1]
    return scenario


def furthest(scenario: Scenario, changes: Sequence[Change]) -> Iterator[Scenario]:
    """The scenario with all changes, from the first on and from the last: one can make another needless, or bar it."""
    for order in (changes, changes[::-1]):
        changed = scenario
        for change in order:
            changed = (change.variants(changed) or (changed,))[-1]
        yield changed
