"""Words that every form of a report uses."""

from vramplan.error_table import Summary
from vramplan.record import Verdict
from vramplan.report.layout import Page


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def error_words(errors: Summary) -> str:
    """`mean error 0.10%, median 0.05%, worst 1.20%`."""
    return f"mean error {errors.mean:.2%}, median {errors.median:.2%}, worst {errors.worst:.2%}"


def verdict_word(verdict: Verdict | None, page: Page) -> str:
    """The verdict in one word, in its colour; empty without one."""
    if verdict is None:
        return ""
    return page.green(verdict.word) if verdict.fits else page.red(verdict.word)
