"""The frontier of micro-batch and sequence: for each batch the longest sequence below which everything fits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from vramplan.ledger import Component, Phase
from vramplan.plan.limit import Limit, Probe
from vramplan.plan.search import largest
from vramplan.predict.engine import ledger
from vramplan.scenario import Scenario

#: Longest sequence that is looked at: 2^20 tokens, the longest context among published models.
LONGEST = 2**20
#: Sequences shorter than this are no row of the frontier.
SHORTEST = 64
BATCHES = (1, 2, 4, 8, 16, 32)
#: Rows (tokens of a micro-batch) up to which bitsandbytes may take its fused kernel (predict/fused.py).
FUSED_ROWS = 1536
#: Shares of the answer at which fitting is checked again, because it need not be monotone.
BELOW = (0.98, 0.92)


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


def longest_sequence(scenario: Scenario, probe: Probe, *, near: int = 0) -> Scenario | None:
    """`scenario` with the longest sequence below which everything fits; None when not even 64 tokens fit."""
    windows = {block.attention.window for block in scenario.architecture.blocks}
    switches = [FUSED_ROWS // scenario.batch, *windows]
    return largest_fitting(lambda n: replace(scenario, seq=n), probe, SHORTEST, LONGEST, switches=switches, near=near)


def largest_fitting(
    make: Callable[[int], Scenario], probe: Probe, low: int, high: int, *, switches: Iterable[int] = (), near: int = 0
) -> Scenario | None:
    """The scenario of the largest number of [low, high] below which all fit; None when that of `low` does not.

    Found by search, then checked below: at `switches` (numbers at which kernels change) and the numbers after them, and
    shortly under the answer. A number that does not fit there becomes the new upper end.
    """
    while low <= high:
        number = largest(lambda n: probe.gap(make(n)), low, high, near=near)
        if number is None:
            return None
        answer = make(number)
        below = [n + more for n in switches for more in (0, 1)] + [int(number * share) for share in BELOW]
        failing = [n for n in sorted(set(below)) if low <= n < number and probe.gap(make(n)) > 0]
        if not failing and probe.fits(answer):
            return answer
        high = min([*failing, number]) - 1
    return None


def row(scenario: Scenario, small: Scenario, probe: Probe) -> Row:
    """What a fitting scenario holds, and which component made it grow from `small`."""
    played = probe.held(scenario)
    peak = played.peak
    before = ledger(small)
    held = {c: size for c, size in peak.held if c is not Component.ALLOCATOR}
    binding = max(held, key=lambda c: held[c] - before.bytes(peak.phase, c))
    context = probe.limit.bytes(scenario) - probe.limit.room(scenario)
    return Row(scenario, peak.allocated, played.reserved + context, peak.phase, binding, held[binding])
