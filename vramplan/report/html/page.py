"""A report as one self-contained HTML page: no script, no request, nothing that a record says becomes markup."""

from vramplan.report.html import results
from vramplan.report.html.bars import component_bars
from vramplan.report.html.document import Section, document
from vramplan.report.html.markup import Html, el
from vramplan.report.html.overview import accuracy, groups, tiles
from vramplan.report.html.runs import timelines
from vramplan.report.html.studies import study_sections, study_tables
from vramplan.report.html.style import stylesheet
from vramplan.report.report_facts import Report
from vramplan.report.report_text import answer

_TITLE = "GPU memory of fine-tuning runs"


def render_page(report: Report) -> str:
    """The whole page. CannotRun when matplotlib, which draws its plots, is missing."""
    sections = _sections(report)
    links = (el("a", section.heading, href=f"#{section.name}") for section in sections)
    return document(
        _TITLE,
        stylesheet(("results", results.COLUMNS), *study_tables(report)),
        el("a", "Skip to all results", href="#results", class_="skip"),
        el(
            "header", el("h1", _TITLE), el("p", answer(report), class_="lede"), el("nav", *links, aria_label="Sections")
        ),
        el("main", *map(_drawn, sections)),
    )


def _sections(report: Report) -> list[Section]:
    """Those that have content."""
    measured = bool(report.closed_form)
    sections = [
        Section("summary", "Summary", "", tiles(report)),
        Section("accuracy", "Predicted against measured", "", accuracy(report) if measured else Html()),
        Section("errors", "Errors by group", "", groups(report) if report.misses else Html()),
        Section(
            "components",
            "What the peaks consist of",
            "Components at each side's own highest moment, the largest errors first.",
            component_bars(report),
        ),
        Section(
            "runs",
            "Memory over the run",
            "What the closed form says is allocated from loading to the optimizer's step, and what is largest at the "
            "peak: the largest run of each model family.",
            timelines(report),
        ),
        *study_sections(report),
        Section("results", "All results", "", results.results_table(report)),
        Section(
            "details",
            "Every result in detail",
            "Bytes by phase and component, where and with what it was measured, and the scenario that repeats it.",
            results.result_details(report),
        ),
        Section(
            "skipped",
            "Skipped files",
            "",
            el("ul", *(el("li", text) for text in report.skipped)) if report.skipped else Html(),
        ),
    ]
    return [section for section in sections if section.content]


def _drawn(section: Section) -> Html:
    words = (el("p", section.note, class_="soft"),) if section.note else ()
    look = "first" if section.name == "summary" else ""
    return el("section", el("h2", section.heading), *words, section.content, id=section.name, class_=look)
