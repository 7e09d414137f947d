"""A report as GitHub-flavoured Markdown, for pull requests and step summaries. Pure: a value in, a string out."""

from collections.abc import Callable, Iterator, Sequence

from vramplan.report.check_markdown import escape
from vramplan.report.comparison import EQUAL, percent
from vramplan.report.report_facts import Case, Miss, Report
from vramplan.report.report_text import answer, counted, misses_by_case, size_column, sizes_of
from vramplan.units import human

_OPEN_ROWS = 20  # more results than that are folded away, the errors by group staying in sight


def report_markdown(report: Report) -> str:
    """The answer, errors by group, one row per result, what double quantisation saves, and what was skipped."""
    lines = [f"**{answer(report)}**", ""]
    if report.misses:
        lines += [*_groups(report), ""]
    results = list(_results(report))
    if len(report.cases) > _OPEN_ROWS:
        summary = f"<details><summary>{counted(len(report.cases), 'result')}</summary>"
        results = [summary, "", *results, "", "</details>"]
    lines += results
    if report.doubles:
        lines += ["", *_doubles(report)]
    if report.skipped:
        lines += ["", *(f"- skipped: {escape(text)}" for text in report.skipped)]
    return "\n".join(lines)


def _results(report: Report) -> Iterator[str]:
    unit, written = size_column(report)
    misses = misses_by_case(report)
    head = ["scenario", "device", "outcome", "peaks in", f"measured{unit}", "predicted", "error", "static", "reserved"]
    yield from _table(head, [_result(case, misses.get(case.number), written) for case in report.cases], left=4)


def _result(case: Case, miss: Miss | None, written: Callable[[int], str]) -> list[str]:
    phase = case.result.ledger.peak_phase.value if case.peak else ""
    outcome = case.outcome + (f": {case.problem}" if case.problem else "")
    sizes = sizes_of(case, written)
    errors = ["", "", ""]
    if miss:
        reserved = percent(miss.reserved.relative) if miss.reserved else ""
        errors = [percent(miss.error), EQUAL if miss.static_equal else "differs", reserved]
    return [escape(case.result.scenario.name), case.result.device, escape(outcome), phase, *sizes, *errors]


def _groups(report: Report) -> Iterator[str]:
    rows = [
        [
            group.by,
            escape(group.name),
            str(len(group.errors)),
            *(f"{size:.2%}" for size in (group.summary.mean, group.summary.median, group.summary.worst)),
        ]
        for group in report.groups
    ]
    yield from _table(["error of the peak by", "", "records", "mean", "median", "worst"], rows, left=2)


def _doubles(report: Report) -> Iterator[str]:
    rows = []
    for pair in report.doubles:
        bits = [f"{case.result.bits_per_parameter:.3f}" for case in (pair.single, pair.double)]
        saved = [human(-both.difference) for both in (pair.quant_state, pair.peak)]
        how = "measured" if pair.double.measured else pair.double.result.engine
        rows.append([escape(pair.double.result.scenario.name), how, *bits, *saved])
    head = ["double quantisation", "", "bits without", "bits with", "saved in constants", "saved at the peak"]
    yield from _table(head, rows, left=2)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    rule = [":--" if i < left else "--:" for i in range(len(head))]
    for line in (head, rule, *rows):
        yield "| " + " | ".join(" ".join(cell.split()) for cell in line) + " |"
