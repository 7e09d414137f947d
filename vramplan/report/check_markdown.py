"""A check as GitHub-flavoured Markdown, for pull requests and step summaries. Pure: a value in, a string out."""

from vramplan.check.findings import Check, Status
from vramplan.report.check_text import peak_cells, peaks_unit
from vramplan.report.check_words import answer, details
from vramplan.report.markdown_table import escape, markdown_table


def check_markdown(check: Check) -> str:
    """The answer, a table of what is not equal, and the reasons of each row."""
    unit, factor = peaks_unit(check)
    mark = "\N{WHITE HEAVY CHECK MARK}" if check.passed else "\N{CROSS MARK}"
    shown = [case for case in check.cases if case.status is not Status.EQUAL]
    lines = [f"{mark} **{escape(answer(check))}**", ""]
    head = ["scenario", "status", f"baseline {unit}", f"new {unit}", "difference", "relative", "why"]
    rows = []
    for case in shown:
        why = "<br>".join(escape(text) for text in details(case))
        rows.append([escape(str(case.key)), case.status.value, *peak_cells(case, factor), why])
    lines += markdown_table(head, rows, left=(0, 1, 6)) if rows else []
    if check.count(Status.EQUAL):
        lines += ["", f"{check.count(Status.EQUAL)} equal to the byte"]
    lines += ["", f"limits: {', '.join(escape(str(limit)) for limit in check.limits)}"]
    return "\n".join([*lines, *(f"- {escape(note)}" for note in check.notes)])
