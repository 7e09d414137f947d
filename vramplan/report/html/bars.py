"""Stacked bars of components at the peak, measured and predicted under each other. HTML, so that they reflow."""

from collections.abc import Sequence

from vramplan.ledger import Component
from vramplan.record import Result
from vramplan.report.html.markup import Html, el, joined, quantity
from vramplan.report.report_case import Case
from vramplan.report.report_facts import Report
from vramplan.report.report_pairs import DoublePair
from vramplan.report.timeline_picture import COLORS
from vramplan.units import human

_PAIRS = 4  # pairs that are drawn; the table has all of them
_PACKED = (Component.WEIGHTS, Component.QUANT_STATE)
_IN_SIGHT = 12  # pairs of bars that are not folded away
_STACK = tuple(component for component in COLORS if component is not Component.CONTEXT)


def component_bars(report: Report) -> Html:
    """One pair of bars per record, the largest errors first; one bar per prediction."""
    cases = sorted((case for case in report.cases if case.peak), key=_order)
    shown, folded = cases[:_IN_SIGHT], cases[_IN_SIGHT:]
    parts = [_legend(cases), el("ul", *map(_bars, shown), class_="bars")]
    if folded:
        heading = el("summary", f"{len(folded)} more, smaller errors first to last")
        parts.append(el("details", heading, el("div", el("ul", *map(_bars, folded), class_="bars"), class_="body")))
    return joined(parts)


def _order(case: Case) -> tuple[float, int]:
    error = abs(case.comparison.peak.relative or 0.0) if case.comparison else -1.0
    return -error, case.number


def _legend(cases: Sequence[Case]) -> Html:
    sides = [side.ledger for case in cases for side in case.sides]
    used = {entry.component for ledger in sides for entry in ledger.of(ledger.peak_phase)}
    keys = (el("li", el("i", class_=part.value), part.value) for part in _STACK if part in used)
    return el("ul", *keys, class_="legend", aria_label="Colours of the components")


def _bars(case: Case) -> Html:
    sides = case.sides
    longest = max(side.ledger.peak for side in sides)
    phases = " / ".join(dict.fromkeys(side.ledger.peak_phase.value for side in sides))
    name = el("a", case.result.scenario.name, href=f"#r{case.number}")
    words = ("measured" if case.measured else "predicted", "predicted")
    rows = (_row(word, side, longest) for word, side in zip(words, sides, strict=False))
    return el("li", el("p", name, el("span", f" {phases}", class_="soft")), *rows)


def _row(word: str, side: Result, longest: int) -> Html:
    held = [(part, side.ledger.bytes(side.ledger.peak_phase, part)) for part in _STACK]
    return stacked_bar(word, held, longest)


def double_bars(pairs: Sequence[DoublePair]) -> Html:
    """What quantised weights and their constants take at the peak, without and with double quantisation."""
    return el("ul", *map(_double, pairs[:_PAIRS]), class_="bars")


def _double(pair: DoublePair) -> Html:
    sides = [(word, case.result.ledger) for word, case in (("without", pair.single), ("with", pair.double))]
    held = {word: [(part, ledger.bytes(ledger.peak_phase, part)) for part in _PACKED] for word, ledger in sides}
    longest = max(sum(size for _, size in parts) for parts in held.values()) or 1
    name = el("p", el("a", pair.double.name, href=f"#r{pair.double.number}"))
    return el("li", name, *(stacked_bar(word, parts, longest) for word, parts in held.items()))


def stacked_bar(word: str, held: Sequence[tuple[Component, int]], longest: int) -> Html:
    """A line: `word`, the components as lengths of which `longest` bytes fill the line, and their sum."""
    segments = joined(
        Html(f'<i class="{part}" style="width:{100 * size / longest:.2f}%" title="{part} {human(size)}"></i>')
        for part, size in held
        if size
    )
    label = f"{word}: " + ", ".join(f"{part} {human(size)}" for part, size in held if size)
    total = sum(size for _, size in held)
    bar = el("span", segments, class_="bar", role="img", aria_label=label)
    return el("div", el("span", word), bar, quantity(total, human(total)), class_="row")
