"""The studies of a report, as far as its results have something for them."""

from collections.abc import Sequence
from dataclasses import replace

from vramplan.report.layout import table_unit
from vramplan.report.report_facts import Report
from vramplan.report.report_study import Column, Study
from vramplan.report.study_double import double_study
from vramplan.report.study_paged import paged_study
from vramplan.report.study_peaks import peaks_study
from vramplan.report.study_verdicts import verdicts_study


def studies(report: Report) -> tuple[Study, ...]:
    """Those that this report's results have something for."""
    makers = (double_study, paged_study, peaks_study, verdicts_study)
    return tuple(_finished(study) for make in makers for study in make(report))


def _finished(study: Study) -> Study:
    """The study without columns that no row has anything for, and with units in the heads of the others."""
    kept = [i for i in range(len(study.columns)) if any(row[i].text or row[i].sizes for row in study.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in study.rows)
    columns = (_with_unit(study.columns[i], [size for row in study.rows for size in row[i].sizes]) for i in kept)
    return replace(study, columns=tuple(columns), rows=rows)


def _with_unit(column: Column, sizes: Sequence[int]) -> Column:
    """Where a laptop's amounts stand beside a card's, no unit fits all: then each cell has its own."""
    amounts = [abs(size) for size in sizes if size]
    unit, factor = table_unit(max(amounts, default=0))
    if not amounts or min(amounts) < factor / 20:
        return column
    return replace(column, head=f"{column.head} {unit}", short=f"{column.short} {unit}", factor=factor)
