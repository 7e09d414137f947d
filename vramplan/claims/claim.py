"""A claim: what is said, the commands that answer it, and how their answers decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: How far a rounded claim may be from the exact number and still be confirmed: claims have one or two digits.
ROUNDED = 0.05
GB = 10**9
MB = 10**6

#: The JSON object that a command prints with `--json`.
Output = Mapping[str, Any]


class Verdict(StrEnum):
    """What became of a claim."""

    CONFIRMED = "confirmed"
    CORRECTED = "corrected"
    DEPENDS = "depends"
    """True of some runs and wrong of others; the finding says of which."""
    OPEN = "open"
    """Only a GPU can tell, and there is no record yet."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the commands' answers say about a claim."""

    verdict: Verdict
    arithmetic: str
    """The exact numbers, put in, so that a reader can redo it."""


#: From the commands' JSON objects, in their order, to the finding. A `python -c` gives `{"text", "code"}`.
Find = Callable[[Sequence[Output]], Finding]


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement with a number, or one that decides a number."""

    id: str
    said: str
    """The claim, in its own units."""
    commands: tuple[str, ...]
    """Command lines without `--json`, which is added when they are run: `vramplan ...` or `python -c ...`."""
    find: Find
    verdict: Verdict
    """As it was found; a run that finds another one is a failed check."""
    because: str
    """Why, in words: what is right about it, and what to say instead."""
    measured: str = ""
    """Where a measurement shows it; empty where none does."""
    traced: bool = False
    """Whether the trace answers the same commands, and is asked too when traces are wanted."""


def rounds_to(claimed: float, found: float) -> bool:
    """Whether the claim is the exact number, rounded."""
    return abs(claimed - found) <= ROUNDED * abs(found)


def judged(claimed: float, found: float, arithmetic: str) -> Finding:
    """Confirmed where the claim is the exact number, rounded; else corrected."""
    return Finding(Verdict.CONFIRMED if rounds_to(claimed, found) else Verdict.CORRECTED, arithmetic)


def all_of(*right: bool) -> Verdict:
    """Confirmed when every part is right, corrected when none is, else it depends."""
    if all(right):
        return Verdict.CONFIRMED
    return Verdict.DEPENDS if any(right) else Verdict.CORRECTED
