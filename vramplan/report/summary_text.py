"""Several predictions as one table for a terminal or a pipe."""

from collections.abc import Sequence

from vramplan.record import Prediction
from vramplan.report.layout import Page, fitting_table, table_unit
from vramplan.report.verdict_text import no_verdict, verdict_lines, verdict_word

_NAMED = 3  # scenarios that a warning names; more are a number


def render_summary(predictions: Sequence[Prediction], page: Page) -> str:
    """One line per scenario: the peak, where it is, and the verdict; under them what is to be known of several."""
    unit, factor = table_unit(max(p.ledger.peak for p in predictions))
    on_card = any(p.reserved for p in predictions)
    judged = any(p.verdict for p in predictions)
    head = [
        "scenario",
        "peaks in",
        f"{unit} allocated",
        *(["reserved", "device"] if on_card else []),
        *(["verdict"] if judged else []),
    ]
    rows = [head]
    for p in predictions:
        row = [p.scenario.name, p.ledger.peak_phase.value, f"{p.ledger.peak / factor:.2f}"]
        if on_card:
            row += [f"{p.peak_reserved / factor:.2f}", f"{p.peak_on_device / factor:.2f}"]
        rows.append(row + ([verdict_word(p.verdict, page)] if judged else []))
    lines = fitting_table(
        rows, page, left=("scenario", "peaks in", "verdict"), less_important=("reserved", "peaks in", "device")
    )
    if warnings := _shared_warnings(predictions):
        lines += ["", *(line for text in warnings for line in page.wrap(text, indent="  "))]
    for text in _judged(predictions):
        lines += ["", *page.wrap(text, indent="  ")]
    return "\n".join(lines)


def in_short(predictions: Sequence[Prediction]) -> list[str]:
    """What they warn of and how they were judged, a line each: for who asks of many files whether they fit."""
    if len(predictions) > 1:
        return [*_shared_warnings(predictions), *_judged(predictions)]
    return [f"warning: {text}" for p in predictions for text in p.warnings] + verdict_lines(predictions[0], Page())


def _judged(predictions: Sequence[Prediction]) -> list[str]:
    """That there is no verdict on some, and how many of the others fit."""
    verdicts = [p.verdict for p in predictions if p.verdict is not None]
    fit = f"{sum(verdict.fits for verdict in verdicts)} of {len(predictions)} fit" if verdicts else ""
    return [line for line in (no_verdict(predictions), fit) if line]


def _shared_warnings(predictions: Sequence[Prediction]) -> list[str]:
    """Each warning once, with the scenarios that it is about."""
    about: dict[str, list[str]] = {}
    for prediction in predictions:
        for text in prediction.warnings:
            about.setdefault(text, []).append(prediction.scenario.name)
    lines = []
    for text, names in about.items():
        few = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} of {len(predictions)} scenarios"
        lines.append(f"warning: {few}: {text}")
    return lines
