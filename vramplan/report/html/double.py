"""The double-quantisation study: what quantising the block constants saved, from pairs of runs that differ in it."""

from vramplan.compare import Pair
from vramplan.ledger import Component
from vramplan.report.html.bars import stacked_bar
from vramplan.report.html.markup import Html, el, joined, quantity
from vramplan.report.report_facts import DoublePair, Report
from vramplan.units import human

COLUMNS = ("", "bits/parameter", "constants", "saved", "peak saved", "predicted")
_HEAD = ("run", "bits per parameter", "constants", "saved", "peak saved", "predicted")

_PARTS = (Component.WEIGHTS, Component.QUANT_STATE)
_DRAWN = 4  # pairs that are drawn; the table has all of them


def double_study(report: Report) -> Html:
    """A row per pair; or how to get a pair."""
    if not report.doubles:
        return el(
            "p",
            "None of these results differ in ",
            el("code", "quant.double"),
            " alone. Measure or predict a scenario a second time with ",
            el("code", "--no-double-quant"),
            " to see here what it saves.",
            class_="soft",
        )
    head = el("tr", *(el("th", name, scope="col", class_="n" if i else "") for i, name in enumerate(_HEAD)))
    caption = el(
        "caption",
        "Without double quantisation → with it. The constants are one fp32 per block of weights, or one byte per block "
        "and an fp32 per 256 blocks.",
    )
    body = el("tbody", *map(_row, report.doubles))
    table = el("table", caption, el("thead", head), body, class_="cards double")
    note = el("p", "Packed weights and their constants, without and with double quantisation.", class_="soft")
    return joined((note, el("ul", *map(_bars, report.doubles[:_DRAWN]), class_="bars"), table))


def _bars(pair: DoublePair) -> Html:
    """What the quantised weights take on both sides, at the peak of each."""
    sides = [(word, case.result.ledger) for word, case in (("without", pair.single), ("with", pair.double))]
    held = {word: [(part, ledger.bytes(ledger.peak_phase, part)) for part in _PARTS] for word, ledger in sides}
    longest = max(sum(size for _, size in parts) for parts in held.values()) or 1
    name = el("p", el("a", pair.double.result.scenario.name, href=f"#r{pair.double.number}"))
    return el("li", name, *(stacked_bar(word, parts, longest) for word, parts in held.items()))


def _row(pair: DoublePair) -> Html:
    result = pair.double.result
    how = f"{'measured' if pair.double.measured else result.engine}, {result.device}"
    link = el("a", result.scenario.name, href=f"#r{pair.double.number}")
    bits = f"{pair.single.result.bits_per_parameter:.3f} → {result.bits_per_parameter:.3f}"
    return el(
        "tr",
        el("th", link, el("small", how), scope="row"),
        el("td", bits, class_="n"),
        el("td", _both(pair.quant_state), class_="n"),
        el("td", _saved(pair.quant_state), class_="n"),
        el("td", _saved(pair.peak), class_="n"),
        el("td", _saved(pair.predicted) if pair.predicted else "", class_="n"),
    )


def _both(pair: Pair) -> Html:
    return joined((quantity(size, human(size)) for size in (pair.reference, pair.other)), " → ")


def _saved(pair: Pair) -> Html:
    share = f" ({-pair.relative:.1%})" if pair.relative else ""
    return joined((quantity(-pair.difference, human(-pair.difference)), share))
