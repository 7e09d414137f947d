"""The verdict as text: its word in colour, and the line that ends a prediction."""

from collections.abc import Sequence

from vramplan.record import Prediction, Verdict
from vramplan.report.layout import Page
from vramplan.units import human


def verdict_word(verdict: Verdict | None, page: Page) -> str:
    """`fits`, `tight` or `does not fit`, green where it fits; empty without a verdict."""
    if verdict is None:
        return ""
    return page.green(verdict.word) if verdict.fits else page.red(verdict.word)


def no_verdict(predictions: Sequence[Prediction]) -> str:
    """That there is no verdict on some of them, or on any, and what is lacking; empty where all are judged."""
    without = sum(p.unjudged for p in predictions)
    share = f" on {without} of {len(predictions)}" if without < len(predictions) else ""
    return f"no verdict{share}: name a card (--gpu rtx3090) or a budget (--budget 24GiB)" if without else ""


def verdict_lines(prediction: Prediction, page: Page) -> list[str]:
    """Whether it fits, what it takes of what, and how much is left or lacking."""
    verdict, gpu = prediction.verdict, prediction.scenario.gpu
    if prediction.unjudged:
        return page.wrap(no_verdict([prediction]), indent="  ")
    if verdict is None:
        ledger = prediction.ledger
        text = f"needs {human(ledger.peak)} of the machine's memory, reached in {ledger.peak_phase.value}"
        return page.wrap(text, indent="  ")
    where = f" on {gpu}" if gpu else ""
    room = f"{human(verdict.margin)} to spare" if verdict.margin >= 0 else f"{human(-verdict.margin)} too much"
    text = f"{human(verdict.needed)} of {human(verdict.budget)}{where}, {room}"
    if verdict.fits and prediction.peak_on_device > verdict.budget:
        text += ", because PyTorch gives cached memory back before it runs out"
    return page.wrap(f"{verdict_word(verdict, page)}: {text}", indent="  ")
