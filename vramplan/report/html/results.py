"""Every result: a table of all of them, and each one's bytes, environment and provenance."""

import json
from collections.abc import Iterator

from vramplan.ledger import Component, Phase
from vramplan.record import Record, Result
from vramplan.report.comparison import percent
from vramplan.report.html.markup import Html, el, joined, quantity
from vramplan.report.layout import amount, table_unit
from vramplan.report.report_case import Case, stack_name
from vramplan.report.report_facts import Report
from vramplan.report.report_text import misses_by_case
from vramplan.report.report_words import basis_words
from vramplan.units import human

COLUMNS = ("", "on", "outcome", "peaks in", "measured", "predicted", "error", "reserved", "static")
_HEAD = ("scenario", "on", "outcome", "peaks in", "measured", "predicted", "error", "reserved", "static bytes")
_NUMBERS = 4  # columns from there on are numbers


def results_table(report: Report) -> Html:
    """One row per result; each amount in its own unit, since a laptop's run and a card's are a thousandfold apart."""
    head = el("tr", *(el("th", name, scope="col", class_="n" if i >= _NUMBERS else "") for i, name in enumerate(_HEAD)))
    misses = misses_by_case(report)
    rows = []
    for case in report.cases:
        miss = misses.get(case.number)
        reserved = miss.reserved.relative if miss and miss.reserved else None
        cells = [
            quantity(case.peak, human(case.peak)) if case.peak and case.measured else "",
            _predicted(case),
            _error(miss.error) if miss else "",
            _error(reserved) if reserved is not None else "",
            ("equal" if miss.static_equal else "differ") if miss else "",
        ]
        rows.append(el("tr", *_names(case), *(el("td", cell, class_="n") for cell in cells)))
    return el("table", el("thead", head), el("tbody", *rows), class_="cards results")


def _names(case: Case) -> Iterator[Html]:
    result = case.result
    scenario = result.scenario
    how = [scenario.model.name, scenario.method.value, scenario.quant.type.value, stack_name(case)]
    name = el("a", scenario.name, href=f"#r{case.number}")
    yield el("th", name, el("small", ", ".join(how)), scope="row")
    gpu = str(result.environment.get("gpu", "")) if isinstance(result, Record) else scenario.gpu
    yield el("td", gpu or result.device)
    yield el("td", case.outcome, *((el("small", case.problem),) if case.problem else ()))
    yield el("td", result.ledger.peak_phase.value if case.peak else "")


def _predicted(case: Case) -> str:
    if case.measured and case.comparison is None:
        return ""
    size = case.comparison.a.ledger.peak if case.comparison else case.peak
    return quantity(size, human(size))


def _error(relative: float) -> Html:
    return el("span", percent(relative), class_="under" if relative < 0 else "over" if relative else "good")


def result_details(report: Report) -> Html:
    """One fold per result, reached by links to `#r<number>`, which unfold it."""
    return joined(map(_detail, report.cases))


def _detail(case: Case) -> Html:
    result = case.result
    told = [result.engine if not case.measured else "measured", result.device, case.outcome]
    told += [human(case.peak)] if case.peak else []
    heading = el("summary", el("b", result.scenario.name), el("span", f" {', '.join(told)}", class_="soft"))
    warnings = [case.problem, *case.item.faults, *result.warnings]
    body = [el("p", text, class_="warn") for text in warnings if text]
    body += [_ledger(case)] if case.peak else []
    facts = el("div", el("h3", "Provenance"), _facts(_provenance(case)))
    scenario = el("div", el("h3", "Scenario"), el("pre", _yaml(result)))
    return el(
        "details",
        heading,
        el("div", *body, el("div", facts, scenario, class_="two"), class_="body", id=f"r{case.number}"),
    )


def _ledger(case: Case) -> Html:
    """Components down, phases across; under a measured number, how much more or less the closed form says."""
    ledger = case.result.ledger
    unit, factor = table_unit(ledger.peak)
    phases = ledger.phases
    head = el("tr", el("th", unit, scope="col"), *(el("th", phase.value, scope="col", class_="n") for phase in phases))
    rows = [_part(case, part, factor) for part in Component if part is not Component.CONTEXT]
    rows.append(_line("allocated", [_total(case, phase, factor) for phase in phases], look="sum"))
    if case.result.reserved:
        held = [case.result.reserved.get(phase, 0) for phase in phases]
        rows.append(_line("reserved", [quantity(size, amount(size, factor)) for size in held]))
    rows.append(_part(case, Component.CONTEXT, factor))  # stands outside the allocator
    compared = "Measured; below it, what the closed form has more or less."
    note = compared if case.comparison else basis_words(ledger.entries)
    return el("table", el("caption", note), el("thead", head), el("tbody", *rows), class_="ledger")


def _line(name: str, cells: list[Html], *, look: str = "") -> Html:
    return el("tr", el("th", name, scope="row"), *(el("td", cell, class_="n") for cell in cells), class_=look)


def _part(case: Case, part: Component, factor: int) -> Html:
    """The row of a component, empty when neither side holds any."""
    sides = [[side.ledger.bytes(phase, part) for side in case.sides] for phase in case.result.ledger.phases]
    if not any(map(any, sides)):
        return Html()
    return _line(part.value, [_against(held, predicted, factor) for held, *predicted in sides])


def _total(case: Case, phase: Phase, factor: int) -> Html:
    held, *predicted = (side.ledger.allocated(phase) for side in case.sides)
    return _against(held, predicted, factor)


def _against(held: int, predicted: list[int], factor: int) -> Html:
    shown = quantity(held, amount(held, factor)) if held else Html("-")
    if not predicted or predicted[0] == held:
        return shown
    return joined((shown, el("small", f"{(predicted[0] - held) / factor:+.2f}")))


def _facts(facts: list[tuple[str, str]]) -> Html:
    return el("dl", *(part for name, text in facts for part in (el("dt", name), el("dd", text))), class_="facts")


def _provenance(case: Case) -> list[tuple[str, str]]:
    result = case.result
    facts = [("file", case.item.source), ("engine", result.engine)]
    if result.libraries:
        word = "libraries" if case.measured else "modelled"
        facts.append((word, ", ".join(f"{name} {version}" for name, version in result.libraries.items())))
    if not isinstance(result, Record):
        return facts
    facts += [(str(name), _value(str(name), value)) for name, value in result.environment.items() if name != "device"]
    steps = result.timings.get("step_ms"), result.timings.get("tokens_per_second")
    if isinstance(steps[0], int | float):
        facts.append(("step", f"{steps[0]:,.1f} ms (median)"))
    if isinstance(steps[1], int | float):
        facts.append(("speed", f"{steps[1]:,.0f} tokens per second"))
    return facts


def _value(name: str, value: object) -> str:
    """A fact of the environment as text; amounts of memory in their unit."""
    if name in ("memory", "capacity") and isinstance(value, int):
        return human(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _yaml(result: Result) -> str:
    """The scenario as a scenario file: a line of flow-style YAML per key."""
    mapping = result.scenario.to_mapping()
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in mapping.items())
