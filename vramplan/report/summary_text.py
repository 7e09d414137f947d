"""Several predictions as one table for a terminal or a pipe."""

from collections.abc import Sequence

from vramplan.record import Prediction
from vramplan.report.layout import Page, fitting_table, table_unit
from vramplan.report.verdict_text import HOW_TO_JUDGE, NO_VERDICT, verdict_word

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
    warnings = _shared_warnings(predictions, page)
    lines += ["", *warnings] if warnings else []
    without = sum(p.verdict is None and p.device == "cuda" for p in predictions)
    if without:
        share = f" on {without} of {len(predictions)}" if without < len(predictions) else ""
        lines += ["", *page.wrap(f"{NO_VERDICT}{share}: {HOW_TO_JUDGE}", indent="  ")]
    if judged:
        fitting = sum(p.verdict is not None and p.verdict.fits for p in predictions)
        lines += ["", f"{fitting} of {len(predictions)} fit"]
    return "\n".join(lines)


def _shared_warnings(predictions: Sequence[Prediction], page: Page) -> list[str]:
    """Each warning once, with the scenarios that it is about."""
    about: dict[str, list[str]] = {}
    for prediction in predictions:
        for text in prediction.warnings:
            about.setdefault(text, []).append(prediction.scenario.name)
    lines = []
    for text, names in about.items():
        few = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} of {len(predictions)} scenarios"
        lines += page.wrap(f"warning: {few}: {text}", indent="  ")
    return lines
