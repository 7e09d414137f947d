"""The frontier of micro-batch and sequence: for each batch the longest sequence below which everything fits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from vramplan.ledger import Component, Phase
from vramplan.plan.limit import Limit, Probe, allocated_peak
from vramplan.plan.search import largest
from vramplan.predict.forecast import forecast, ledger
from vramplan.predict.gemm_4bit import NEVER_FUSED_ROWS
from vramplan.scenario import Scenario
from vramplan.timeline import Part, Repeat

#: Longest sequence that is looked at: 2^20 tokens, the longest context among published models.
LONGEST = 2**20
#: Sequences shorter than this are no row of the frontier.
SHORTEST = 64
BATCHES = (1, 2, 4, 8, 16, 32)
#: How much is replayed to check that everything below an answer fits, in events of a timeline: four lengths of a 7B
#: model, thirty of a model of a few layers, where segments of 20 MiB weigh more and fitting is less monotone.
CHECKED_EVENTS = 100_000
#: Checked as well: so many below the answer, where there is least to spare.
NEAR_BELOW = (1, 2, 3, 5, 8, 13, 21, 34)


@dataclass(frozen=True, slots=True)
class Row:
    """The longest sequence of one micro-batch."""

    scenario: Scenario
    """Complete, with the row's batch and sequence."""
    allocated: int
    """Peak of `torch.cuda.max_memory_allocated`."""
    device: int
    """What the process holds on the card: reserved, and the context where a card is named."""
    phase: Phase
    """Where the peak is."""
    binding: Component
    """What grew most on the way from the shortest sequence: what the limit is due to."""
    binding_bytes: int
    """What it holds at the peak."""

    @property
    def tokens(self) -> int:
        """Tokens of an optimizer step."""
        return self.scenario.tokens * self.scenario.grad_accum


def frontier(scenario: Scenario, limit: Limit, batches: Sequence[int] = BATCHES) -> tuple[Row, ...]:
    """A row for each batch of which a sequence of at least 64 tokens fits."""
    return tuple(_rows(scenario, Probe(limit), batches))


def _rows(scenario: Scenario, probe: Probe, batches: Sequence[int]) -> Iterator[Row]:
    near = 0
    for batch in batches:
        longest = longest_sequence(replace(scenario, batch=batch), probe, near=near // batch)
        if longest is None:
            return
        near = longest.tokens
        yield row(longest, replace(longest, seq=SHORTEST), probe)


def longest_sequence(
    scenario: Scenario, probe: Probe, *, near: int = 0, low: int = SHORTEST, high: int = LONGEST
) -> Scenario | None:
    """`scenario` with the longest sequence of [low, high] below which everything fits; None when `low` does not."""
    windows = {block.attention.window for block in scenario.architecture.blocks}
    switches = [NEVER_FUSED_ROWS // scenario.sequences, *windows, scenario.seq]
    return largest_fitting(lambda n: replace(scenario, seq=n), probe, low, high, switches=switches, near=near)


def largest_fitting(
    make: Callable[[int], Scenario], probe: Probe, low: int, high: int, *, switches: Iterable[int] = (), near: int = 0
) -> Scenario | None:
    """The scenario of the largest number of [low, high] below which all fit; None when that of `low` does not.

    Found by search, then checked below, because fitting need not be monotone: at `switches` (numbers at which kernels
    change, or that are asked about) and the numbers after them, right below the answer, and at evenly spaced numbers of
    those in doubt, that is, whose tensors leave too little room to be sure. A number that does not fit becomes the new
    upper end. A band of failing numbers narrower than the spacing can be missed.
    """
    gap = probe.gap

    def lacking(number: int) -> int:
        return gap(make(number))

    while low <= high:
        number = largest(lacking, low, high, near=near)
        if number is None:
            return None
        answer = make(number)
        if not probe.fits(answer):  # taken to fit without a replay, and it does not: from here on all are replayed
            gap, high = probe.replayed_gap, number - 1
            continue
        around = [n + more for n in switches for more in (0, 1)] + [number - less for less in NEAR_BELOW]
        around += _in_doubt(make, low, number, probe)
        failing = next((n for n in sorted(set(around)) if low <= n < number and lacking(n) > 0), None)
        if failing is None:
            return answer
        near = high = failing - 1
    return None


def _in_doubt(make: Callable[[int], Scenario], low: int, number: int, probe: Probe) -> range:
    """Evenly spaced numbers between the largest that fits for sure and `number`."""
    timeline = forecast(make(number), "cuda").timeline
    room, allocated = probe.limit.room(make(number)), allocated_peak(timeline)
    first = allocated_peak(forecast(make(low), "cuda").timeline)
    # Tensors grow about linearly with the number. Up to `sure` they take less than 3/4 of the room, where fitting is
    # taken for granted (`sure_room`).
    sure = low + (number - low) * max(room * 3 // 4 - first, 0) // max(allocated - first, 1)
    count = max(CHECKED_EVENTS // _events(timeline.parts), 4)
    return range(number - 1, min(sure, number), -max((number - sure) // count, 1))


def _events(parts: Iterable[Part]) -> int:
    """How many events a timeline has, repeats written out."""
    return sum(part.times * _events(part.body) if isinstance(part, Repeat) else 1 for part in parts)


def row(scenario: Scenario, small: Scenario, probe: Probe) -> Row:
    """What a fitting scenario holds, and which component made it grow from `small`."""
    played = probe.held(scenario)
    peak = played.peak
    before = ledger(small)
    held = {c: size for c, size in peak.held if c is not Component.ALLOCATOR}
    binding = max(held, key=lambda c: held[c] - before.bytes(peak.phase, c))
    context = probe.limit.bytes(scenario) - probe.limit.room(scenario)
    return Row(scenario, peak.allocated, played.reserved + context, peak.phase, binding, held[binding])
