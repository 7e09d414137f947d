"""What articles claim about double quantisation, held against the pairs of a report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from vramplan.claims.claim import GB, MB, Verdict, all_of, rounds_to
from vramplan.claims.read import gb, mb
from vramplan.report.report_pairs import DoublePair

#: A model is of a claim's size when its parameters are within this share of the billions in its name.
_SIZE = 0.10
#: The QLoRA paper's 0.37 bits (arXiv 2305.14314, section 3), and what articles make of it per model size.
_BITS = 0.37
_SAVED = ((7e9, "7B", 328 * MB, "328 MB"), (13e9, "13B", 610 * MB, "610 MB"), (65e9, "65B", 3 * GB, "3 GB"))
#: Loading a 13B, without and with double quantisation.
_LOADING = (13e9, 9.1 * GB, 8.5 * GB)
#: Up to here a slowdown is negligible even where it is sure. A choice: a quarter of an hour of a day's training.
NEGLIGIBLE = 0.01


@dataclass(frozen=True, slots=True)
class Claimed:
    """One claim, and what the pairs of a report say to it."""

    said: str
    found: str
    verdict: Verdict
    pairs: tuple[DoublePair, ...]
    """Those that it was held against."""


def article_claims(pairs: Sequence[DoublePair]) -> tuple[Claimed, ...]:
    """The claims that these pairs can say something about."""
    return tuple(_claims(tuple(pairs)))


def _claims(pairs: tuple[DoublePair, ...]) -> Iterator[Claimed]:
    if not pairs:
        return
    saved = sorted(pair.bits[0] - pair.bits[1] for pair in pairs)
    found = f"{saved[0]:.3f}" if f"{saved[0]:.3f}" == f"{saved[-1]:.3f}" else f"{saved[0]:.3f} to {saved[-1]:.3f}"
    right = all_of(*(rounds_to(_BITS, bits) for bits in saved))
    yield Claimed(f"it saves {_BITS} bits per parameter", f"{found} bits", right, pairs)
    for size, name, claimed, words in _SAVED:
        yield from (_saved(pair, name, claimed, words) for pair in pairs if _is_of(pair, size))
    yield from (_loading(pair) for pair in pairs if _is_of(pair, _LOADING[0]) and pair.loaded.reference)
    timed = tuple(pair for pair in pairs if pair.times and pair.double.result.scenario.method.trains)
    if timed:
        yield _slowdown(timed)


def _is_of(pair: DoublePair, size: float) -> bool:
    return abs(pair.double.result.parameters.total - size) <= _SIZE * size


def _saved(pair: DoublePair, size: str, claimed: float, words: str) -> Claimed:
    saved = -pair.quant_state.difference
    verdict = all_of(rounds_to(claimed, saved))
    return Claimed(f"it saves {words} on a {size}", f"{mb(saved)} on {_model(pair)}", verdict, (pair,))


def _loading(pair: DoublePair) -> Claimed:
    _, single, double = _LOADING
    said = f"loading a 13B takes {single / GB} GB without it and {double / GB} GB with it"
    low, high = pair.loaded, pair.on_card
    found = f"{_model(pair)}: {gb(low.reference)} and {gb(low.other)} allocated"
    if high is None:
        return Claimed(said, found, Verdict.OPEN, (pair,))
    inside = low.reference <= single <= high.reference and low.other <= double <= high.other
    found += f", {gb(high.reference)} and {gb(high.other)} on the card"
    return Claimed(said, found, all_of(inside and rounds_to(single - double, -low.difference)), (pair,))


def _slowdown(pairs: tuple[DoublePair, ...]) -> Claimed:
    """By the steps of cards; a CPU's kernels say nothing about them."""
    on_card = tuple(pair for pair in pairs if pair.double.result.device == "cuda")
    chosen = on_card or pairs
    slower = sorted(pair.times.slower for pair in chosen if pair.times)
    sure = sum(bool(pair.times and pair.times.beyond_spread) for pair in chosen)
    found = f"median {median(slower):+.1%}, {slower[0]:+.1%} to {slower[-1]:+.1%}; beyond the spread in {sure}"
    found += f" of {len(chosen)}" + ("" if on_card else ", on a CPU, which says nothing about a card")
    verdict = all_of(*map(_negligible, on_card)) if on_card else Verdict.OPEN
    return Claimed("its slowdown is negligible", found, verdict, chosen)


def _negligible(pair: DoublePair) -> bool:
    times = pair.times
    return times is None or times.slower <= NEGLIGIBLE or not times.beyond_spread


def _model(pair: DoublePair) -> str:
    return pair.double.result.scenario.model.name
