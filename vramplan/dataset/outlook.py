"""What training on a data set asks of a card: its batches' lengths, what they take, and which of them do not fit."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

from msgspec.structs import replace

from vramplan.dataset.batches import Batches, RandomBatches
from vramplan.dataset.grouped import GroupedBatches
from vramplan.dataset.lengths import Cut, Lengths
from vramplan.dataset.packing import Packing
from vramplan.dataset.survey import Survey
from vramplan.errors import UsageError
from vramplan.plan.frontier import LONGEST, largest_fitting, longest_sequence
from vramplan.plan.limit import Limit, Probe
from vramplan.predict.engine import predict_analytic
from vramplan.record import Device, Prediction
from vramplan.scenario import Scenario
from vramplan.units import human

#: Numbers of micro-batches after which the chance of having run out of memory is told; and an epoch.
_AFTER = (1, 10, 100, 1000, 10_000)
#: A chance after which no further one is told.
_SURE = 0.999


#: TRL 1.16 sft_trainer.py: packing with bfd turns `padding_free` on.
_FLATTENED = (
    "not counted: TRL feeds packed rows as one long row, for which sdpa gets a mask of {}; flash_attention_2 needs none"
)


class Sampler(StrEnum):
    """How samples become batches."""

    RANDOM = "random"  # shuffled, padded to the longest of the batch
    GROUPED = "grouped"  # similar lengths together: transformers' group_by_length
    PACKED = "packed"  # several samples in a row of `seq` tokens: TRL's packing


@dataclass(frozen=True, slots=True)
class Feed:
    """How a data set is fed to the model."""

    sampler: Sampler = Sampler.RANDOM
    packing: Packing = Packing.BFD
    """How rows are packed, for the packed sampler."""
    multiple: int = 1
    """`pad_to_multiple_of`: batches are padded to a multiple of so many tokens."""

    def padded(self, length: int) -> int:
        """Tokens per row of a batch whose longest sample has `length`."""
        return -(-length // self.multiple) * self.multiple


@dataclass(frozen=True, slots=True)
class Cell:
    """A batch of an epoch, by its place when they are ordered by length."""

    name: str
    """`median`, `p99` or `longest`."""
    prediction: Prediction

    @property
    def seq(self) -> int:
        """Tokens per row of the batch."""
        return self.prediction.scenario.seq


@dataclass(frozen=True, slots=True)
class Risk:
    """What happens with batches that do not fit."""

    fitting: int
    """Padded length of the longest batch up to which all fit; 0 when none fits."""
    share: float
    """Share of an epoch's micro-batches that are longer."""
    expected: float
    """How many of an epoch that is."""
    until: float
    """Expected number of micro-batches until the first of them."""
    chances: tuple[tuple[int, float], ...]
    """Number of micro-batches, and the probability that one of the first so many is longer; last an epoch."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the card has room for, at the scenario's batch."""

    limit: int
    """The sequence limit: no sample that is longer can be trained on; 0 when not even one token can."""
    cut: Cut
    """What that limit takes from the data set."""
    risk: Risk | None
    """Of the batches as they are; None when all fit."""


@dataclass(frozen=True)
class Outlook:
    """A data set under a scenario."""

    scenario: Scenario
    """As given: its `seq` is where samples are truncated, or the length of a packed row."""
    survey: Survey
    feed: Feed
    rows: Lengths
    """What is fed: the samples after truncation, or packed rows."""
    batches: Batches
    cells: tuple[Cell, ...]
    """Median, p99 and longest batch."""
    room: Room | None
    """None where nothing says how much may be held."""

    @property
    def longest(self) -> Scenario:
        """The scenario of the longest batch, which decides whether training fits."""
        return self.cells[-1].prediction.scenario

    @property
    def planned(self) -> Scenario:
        """The same for a plan, which tries other batch sizes: padded where batches of two samples would be."""
        padding = self.longest.padding or (_pads(self.rows, self.feed, 2) and self.longest.attention != "sdpa:flash")
        return replace(self.longest, padding=padding)

    @property
    def fits(self) -> bool:
        """Whether every batch does; also where nothing says how much may be held."""
        return self.room is None or self.room.risk is None

    def batch_percentile(self, percent: Fraction) -> int:
        """The shortest padded length that at least `percent` of an epoch's micro-batches are expected not to exceed."""
        return _percentile(self.rows, self.batches, self.feed, percent)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the predictions of the batches leave out."""
        run = self.longest
        if not run.attention.startswith("sdpa") or run.batch == 1:
            return ()
        if self.feed.sampler is Sampler.PACKED and self.feed.packing is not Packing.WRAPPED:
            return (_FLATTENED.format(human((run.batch * run.seq) ** 2)),)
        return ()

    @cached_property
    def distribution(self) -> tuple[tuple[int, float], ...]:
        """Padded lengths, and the expected share of an epoch's micro-batches that is no longer."""
        count = self.batches.count
        return tuple((seq, max(1 - self.batches.longer(seq) / count, 0.0)) for seq in padded(self.rows, self.feed))

    @cached_property
    def padding(self) -> float:
        """Expected share of the tokens of an epoch's batches that is padding."""
        values = padded(self.rows, self.feed)
        tokens = float(values[0] * self.rows.samples)
        for shorter, longer in pairwise(values):
            tokens += (longer - shorter) * self.batches.samples_longer(shorter)
        return max(1 - self.rows.tokens / tokens, 0.0)


def check_trains_on_data(scenario: Scenario) -> None:
    """Refuse a scenario that trains on no data set, or on one that is not read."""
    if not scenario.method.trains:
        raise UsageError(
            f"method {scenario.method.value} does not train on a data set", hint="qlora, lora and full do; drop --data"
        )
    if scenario.stack.prefers:
        raise UsageError(
            f"stack {scenario.stack.base} trains on pairs of answers, and of those no data set is read",
            hint="give the longest prompt with its answer as --seq; drop --data",
        )


def outlook(
    scenario: Scenario, survey: Survey, feed: Feed, packed: Lengths | None, limit: Limit | None, device: Device
) -> Outlook:
    """What `scenario` asks for when it trains on the surveyed data; `packed` are the rows of the packed sampler.

    `limit` is what may be held on the card; without one, what batches take is told, and not whether they fit.
    """
    rows = survey.lengths.truncated(scenario.seq) if packed is None else packed
    run = _fed(scenario, rows, feed)
    batches: Batches = RandomBatches(rows, run.batch)
    if feed.sampler is Sampler.GROUPED:
        batches = GroupedBatches(rows, run.batch, run.grad_accum)
    budget, reserve = (limit.budget, limit.reserve) if limit else (None, 0)
    cells = tuple(
        Cell(name, predict_analytic(replace(run, seq=seq), device=device, budget=budget, reserve=reserve))
        for name, seq in _places(rows, batches, feed)
    )
    room = _room(run, survey, feed, rows, batches, Probe(limit)) if limit else None
    return Outlook(scenario, survey, feed, rows, batches, cells, room)


def _fed(scenario: Scenario, rows: Lengths, feed: Feed) -> Scenario:
    """The scenario of one batch of these rows, but for its length."""
    run = replace(scenario, batch=min(scenario.batch, rows.samples))
    if not _pads(rows, feed, run.batch):
        return run
    if run.attention == "sdpa:flash":
        raise UsageError(
            "attention: sdpa:flash takes no mask, which batches with padding need",
            hint="set attention: sdpa (the memory-efficient kernel) or flash_attention_2, or --sampler packed",
        )
    return replace(run, padding=True)


def _pads(rows: Lengths, feed: Feed, batch: int) -> bool:
    """Whether batches have padding: samples of different lengths side by side, or ended on a multiple of tokens.

    TRL feeds packed rows without padding, unless they are wrapped ones, of which only the last is not full.
    """
    if feed.sampler is Sampler.PACKED and feed.packing is not Packing.WRAPPED:
        return False
    return (batch > 1 and rows.shortest < rows.longest) or any(length % feed.multiple for length in rows.distinct)


def padded(rows: Lengths, feed: Feed) -> tuple[int, ...]:
    """The lengths that batches can have, rising."""
    return tuple(dict.fromkeys(map(feed.padded, rows.distinct)))


def _percentile(rows: Lengths, batches: Batches, feed: Feed, percent: Fraction) -> int:
    above = float((100 - percent) / 100 * batches.count) + 1e-9
    place = bisect_left(rows.distinct, -above, key=lambda length: -batches.longer(length))
    return feed.padded(rows.distinct[min(place, len(rows.distinct) - 1)])


def _places(rows: Lengths, batches: Batches, feed: Feed) -> Iterator[tuple[str, int]]:
    yield "median", _percentile(rows, batches, feed, Fraction(50))
    yield "p99", _percentile(rows, batches, feed, Fraction(99))
    yield "longest", feed.padded(rows.longest)


def _room(run: Scenario, survey: Survey, feed: Feed, rows: Lengths, batches: Batches, probe: Probe) -> Room:
    """The sequence limit is looked for up to the longest sample as it stands in the file."""
    longest = feed.padded(max(survey.lengths.longest, rows.longest))
    found = longest_sequence(run, probe, low=1, high=min(longest, LONGEST))
    limit = (found.seq if found else 0) // feed.multiple * feed.multiple
    return Room(limit, survey.lengths.cut(limit), _risk(run, rows, batches, feed, limit, probe))


def _risk(run: Scenario, rows: Lengths, batches: Batches, feed: Feed, limit: int, probe: Probe) -> Risk | None:
    """Batches beyond the limit may fit when no batch has the lengths between that do not."""
    values = padded(rows, feed)
    known = bisect_right(values, limit)
    if known == len(values):
        return None
    found = largest_fitting(lambda i: replace(run, seq=values[i]), probe, max(known - 1, 0), len(values) - 1)
    if found is not None and found.seq == values[-1]:
        return None
    fitting = max(found.seq if found else 0, limit)  # what fits need not be a length of the data
    expected, count = batches.longer(fitting), batches.count
    chances = [(number, batches.met_within(number, fitting)) for number in _AFTER if number < count]
    sure = next((i for i, (_, chance) in enumerate(chances) if chance > _SURE), len(chances))
    chances = [*chances[: sure + 1], (count, batches.met_within(count, fitting))]
    return Risk(fitting, expected / count, expected, batches.until(fitting), tuple(chances))
