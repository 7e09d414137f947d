"""Verdicts on fitting beside how the runs ended, as a table."""

from collections.abc import Iterator, Sequence

from vramplan.record import Fit
from vramplan.report.report_facts import Report
from vramplan.report.report_study import Cell, Column, Study, named
from vramplan.report.report_verdicts import FitCheck, Judgement, false_fits
from vramplan.report.report_words import counted


def verdicts_study(report: Report) -> Iterator[Study]:
    """The study; whole cards on which everything ran as predicted are counted, not listed."""
    listed = [check for check in report.fits if check.limit is not None or check.judgement is not Judgement.RIGHT]
    if listed:
        yield Study(
            name="verdicts",
            heading="Fit verdicts",
            note="Runs on a card, by the room that they had: what is predicted for that room, and how they ended.",
            columns=(
                Column("fit verdict of", "", number=False, important=9),
                Column("room", "room", important=6),
                Column("margin", "margin", important=5),
                Column("predicted", "predicted", number=False, important=7),
                Column("ended", "ended", number=False, important=7),
                Column("verdict was", "verdict was", number=False, important=8),
            ),
            rows=tuple(map(_fit_row, listed)),
            findings=(_fits_sentence(report.fits),),
        )


def _fit_row(check: FitCheck) -> tuple[Cell, ...]:
    verdict = check.verdict
    return (
        named(check.case, small="the allocator limited" if check.limit is not None else "the whole card"),
        Cell(sizes=(verdict.budget,)),
        Cell(sizes=(verdict.margin,)),
        Cell(verdict.word.value),
        Cell(check.case.outcome),
        Cell(check.judgement.value),
    )


def _fits_sentence(checks: Sequence[FitCheck]) -> str:
    """How many runs that were predicted to fit ran out of memory, and which."""
    wrong, promised = false_fits(checks), sum(check.verdict.word is Fit.FITS for check in checks)
    if not wrong:
        return f"of {counted(promised, 'run')} predicted to fit, none ran out of memory"
    names = ", ".join(check.case.name for check in wrong)
    return f"of {counted(promised, 'run')} predicted to fit, {len(wrong)} ran out of memory: {names}"
