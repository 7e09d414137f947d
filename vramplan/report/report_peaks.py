"""Where the peaks of training runs are, by vocabulary and sequence."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vramplan.errors import VramplanError
from vramplan.ledger import Component, Phase
from vramplan.report.report_case import Case


@dataclass(frozen=True)
class PeakGroup:
    """The runs of one vocabulary and one length of sequence."""

    vocab: int
    seq: int
    cases: tuple[Case, ...]

    @property
    def batches(self) -> tuple[int, ...]:
        """The micro-batches among them, smallest first."""
        return tuple(sorted({case.result.scenario.batch for case in self.cases}))

    @property
    def phases(self) -> tuple[tuple[Phase, int], ...]:
        """In which phase how many of them peak, the most frequent first."""
        return tuple(Counter(case.result.ledger.peak_phase for case in self.cases).most_common())

    @property
    def largest(self) -> tuple[tuple[Component, int], ...]:
        """Which component is the largest at the peak of how many of them, the most frequent first."""
        return tuple(Counter(map(largest, self.cases)).most_common())

    def share(self, component: Component) -> tuple[float, float]:
        """The smallest and the largest share that a component has of their peaks."""
        ledgers = [case.result.ledger for case in self.cases]
        shares = [ledger.bytes(ledger.peak_phase, component) / ledger.peak for ledger in ledgers]
        return min(shares), max(shares)


def largest(case: Case) -> Component:
    """The component that holds most at the peak; what stands outside the allocator is no part of it."""
    ledger = case.result.ledger
    parts = [part for part in Component if part is not Component.CONTEXT]
    return max(parts, key=lambda part: ledger.bytes(ledger.peak_phase, part))


def peak_groups(cases: Iterable[Case]) -> tuple[PeakGroup, ...]:
    """The training runs, by vocabulary and sequence; empty when all of them have the same."""
    found: dict[tuple[int, int], list[Case]] = {}
    for case in cases:
        scenario = case.result.scenario
        vocab = _vocabulary(case)
        if scenario.method.trains and case.complete and vocab is not None:
            found.setdefault((vocab, scenario.seq), []).append(case)
    groups = tuple(PeakGroup(*key, tuple(found[key])) for key in sorted(found))
    return groups if len(groups) > 1 else ()


def _vocabulary(case: Case) -> int | None:
    """None for a model whose family is not known here."""
    try:
        return case.result.scenario.architecture.vocab
    except VramplanError:
        return None


def counted_names(counts: Sequence[tuple[Phase | Component, int]]) -> str:
    """`backward`, or `backward 3, loss 1` where they differ."""
    if len(counts) == 1:
        return counts[0][0].value
    return ", ".join(f"{name.value} {count}" for name, count in counts)
