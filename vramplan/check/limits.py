"""Limits on growth: `peak:1%`, `unquantized:0B`, `backward.activations:2MiB`."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from vramplan.compare import Comparison, Pair, Row
from vramplan.errors import UsageError, unknown
from vramplan.ledger import Component, Phase
from vramplan.units import human, lacks_unit, parse_bytes

_PERCENT = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*%\s*")
_FORM = "write SUBJECT:AMOUNT, such as peak:1%, unquantized:0B or backward.activations:2MiB"


class Measure(StrEnum):
    """What a limit can be on, besides phases and components."""

    PEAK = "peak"  # allocated at the highest high-water mark of the run
    RESERVED = "reserved"  # the allocator's segments at their highest
    DEVICE = "device"  # reserved and the context
    STEADY = "steady"  # allocated between steps
    PHASES = "phases"  # allocated at the high-water mark of each phase, every phase on its own


@dataclass(frozen=True, slots=True)
class Percent:
    """Growth allowed as a share of the baseline."""

    value: Fraction

    def allows(self, pair: Pair) -> bool:
        """Whether the pair grew by no more; exact, no rounding."""
        return pair.difference * 100 <= self.value * pair.reference

    def __str__(self) -> str:
        return f"{float(self.value):g}%"


@dataclass(frozen=True, slots=True)
class Amount:
    """Growth allowed in bytes."""

    bytes: int

    def allows(self, pair: Pair) -> bool:
        """Whether the pair grew by no more."""
        return pair.difference <= self.bytes

    def __str__(self) -> str:
        return human(self.bytes).replace(".00 ", " ").replace(" ", "")


def mirrored(pair: Pair) -> Pair:
    """Growth where there is shrinkage, by as much: what a limit says to it holds in both directions."""
    return Pair(pair.reference, 2 * pair.reference - pair.other)


@dataclass(frozen=True, slots=True)
class Cell:
    """One component at one phase's high-water mark."""

    phase: Phase
    component: Component

    def __str__(self) -> str:
        return f"{self.phase.value}.{self.component.value}"


Subject = Measure | Phase | Component | Cell
Allowance = Percent | Amount


@dataclass(frozen=True, slots=True)
class Limit:
    """How far one quantity may grow."""

    subject: Subject
    allowance: Allowance

    def __str__(self) -> str:
        return f"{self.subject}:{self.allowance}"


@dataclass(frozen=True, slots=True)
class Reading:
    """A quantity that a limit is on, in baseline (reference) and new result (other)."""

    name: str
    pair: Pair
    rows: tuple[Row, ...]
    """What it consists of, as far as the ledgers say: the cause of its growth is among these."""
    phase: Phase | None = None
    """The phase it belongs to; the peak belongs to the phase in which the new result peaks."""
    component: Component | None = None


def parse_limits(texts: Iterable[str]) -> tuple[Limit, ...]:
    """The limits that texts such as `peak:1%` spell; `step:backward:2MiB` is one amount for two subjects."""
    return tuple(limit for text in texts for limit in _parse(text))


def _parse(text: str) -> Iterator[Limit]:
    *subjects, amount = str(text).split(":")
    if not subjects:
        raise UsageError(f"limit '{text}' has no amount or no subject", hint=_FORM)
    allowance = parse_allowance(amount, f"limit {text}")
    for subject in subjects:
        yield Limit(_subject(subject.strip()), allowance)


def parse_allowance(text: str, key: str) -> Allowance:
    """`1%`, `0B` or `2MiB`; an amount without its meaning (`1MB`, `1`) is refused, `key` naming where it stood."""
    percent = _PERCENT.fullmatch(text)
    if percent:
        return Percent(Fraction(percent[1]))
    size = parse_bytes(text, key, such_as="1% or 2MiB")
    if lacks_unit(text, size):
        number = text.strip()
        raise UsageError(
            f"{key}: '{text}' is a number without a unit", hint=f"write {number}%, {number}MiB or {number}B"
        )
    return Amount(size)


def _subject(word: str) -> Subject:
    for words in (Measure, Phase, Component):
        if word in list(words):
            return words(word)
    phase, dot, component = word.partition(".")
    if dot and phase in list(Phase) and component in list(Component):
        return Cell(Phase(phase), Component(component))
    if dot:
        words_, wrong = (list(Component), component) if phase in list(Phase) else (list(Phase), phase)
        raise unknown("component" if phase in list(Phase) else "phase", wrong, words_, where=f"limit {word}")
    raise unknown("limit", word, [*Measure, *Phase, *Component])


#: What applies when no limit is given. Half a percent of every phase: predictions repeat to the byte and so do the
#: exact counters of a measured run, while small library releases move their workspaces by less than that.
DEFAULT_LIMITS = parse_limits(["peak:0.5%", "phases:0.5%", "steady:0.5%", "reserved:0.5%"])


def readings(subject: Subject, comparison: Comparison) -> Iterator[Reading]:
    """What the limit's subject is in one comparison: nothing, where it has no such phase or counter."""
    if isinstance(subject, Measure):
        yield from _measured(subject, comparison)
    elif isinstance(subject, Phase):
        yield from (reading for reading in _phases(comparison) if reading.phase is subject)
    else:
        component = subject.component if isinstance(subject, Cell) else subject
        for row in comparison.rows:
            if row.component is component and (not isinstance(subject, Cell) or row.phase is subject.phase):
                yield Reading(f"{component.value} in {row.phase.value}", row.pair, (row,), row.phase, component)


def _measured(measure: Measure, comparison: Comparison) -> Iterator[Reading]:
    baseline, new = comparison.a, comparison.b
    if measure is Measure.PEAK:
        phase = new.ledger.peak_phase
        yield Reading("peak", comparison.peak, _allocated(comparison, phase), phase)
    elif measure is Measure.STEADY:
        yield Reading("steady", comparison.steady, tuple(_between_steps(comparison)))
    elif measure is Measure.PHASES:
        yield from _phases(comparison)
    elif baseline.reserved and new.reserved:
        late = {phase for phase, mark in new.reserved.items() if mark > baseline.peak_reserved}
        rows = tuple(row for row in _allocated(comparison) if row.phase in late)
        if measure is Measure.RESERVED:
            yield Reading("reserved", Pair(baseline.peak_reserved, new.peak_reserved), rows)
        else:
            rows += tuple(row for row in comparison.rows if row.component is Component.CONTEXT)
            yield Reading("device", Pair(baseline.peak_on_device, new.peak_on_device), rows)


def _phases(comparison: Comparison) -> Iterator[Reading]:
    for total in comparison.totals:
        rows = _allocated(comparison, total.phase)
        yield Reading(f"{total.phase.value} phase", total.allocated, rows, total.phase)


def _allocated(comparison: Comparison, phase: Phase | None = None) -> tuple[Row, ...]:
    """What the allocator has handed out in a phase, or in all of them."""
    rows = (row for row in comparison.rows if phase in (None, row.phase))
    return tuple(row for row in rows if row.component is not Component.CONTEXT)


def _between_steps(comparison: Comparison) -> Iterator[Row]:
    """Each component that every phase after loading holds, where it is least: only that can stay between steps."""
    phases = [total.phase for total in comparison.totals if total.phase is not Phase.LOAD]
    for component in Component:
        rows = [row for row in _allocated(comparison) if row.component is component and row.phase in phases]
        if rows and len(rows) == len(phases):
            yield min(rows, key=lambda row: row.pair.other)
