"""Pairs of runs without and with double quantisation, as a table."""

from collections.abc import Iterator

from vramplan.report.report_claims import Claimed, article_claims
from vramplan.report.report_facts import Report
from vramplan.report.report_pairs import DoublePair
from vramplan.report.report_study import ARROW, Cell, Column, Study, named, saved, time_cells


def double_study(report: Report) -> Iterator[Study]:
    """The study, where there is a pair."""
    if report.doubles:
        yield Study(
            name="double",
            heading="Double quantisation",
            note="Without it → with it. The constants are one fp32 per block of weights, or one byte per block and an "
            "fp32 per 256 blocks. Step times are medians, with the fastest and the slowest step.",
            columns=(
                Column("double quantisation", "", number=False, important=9),
                Column("on", "on", number=False, important=0),
                Column("bits per parameter", "bits", important=6),
                Column("constants", "constants", important=2),
                Column("saved", "saved", important=8),
                Column("at the peak", "at the peak", important=7),
                Column("predicted", "predicted", important=1),
                Column("ms per step", "ms per step", important=4),
                Column("slower", "slower", important=5),
            ),
            rows=tuple(map(_double_row, report.doubles)),
            findings=tuple(map(_claim, article_claims(report.doubles))),
        )


def _double_row(pair: DoublePair) -> tuple[Cell, ...]:
    state, predicted = pair.quant_state, pair.predicted
    return (
        named(pair.double),
        Cell(pair.double.how),
        Cell(ARROW.join(f"{bits:.3f}" for bits in pair.bits)),
        Cell(sizes=(state.reference, state.other)),
        saved(state),
        saved(pair.peak),
        saved(predicted) if predicted else Cell(),
        *time_cells(pair.times),
    )


def _claim(claim: Claimed) -> str:
    return f"{claim.verdict.value}: articles say that {claim.said}; here {claim.found}"
