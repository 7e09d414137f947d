"""Memory over the run, for a few records: the timeline that the closed form made for each."""

from collections.abc import Iterator

from vramplan.allocator import replay
from vramplan.errors import VramplanError
from vramplan.predict.forecast import forecast
from vramplan.report.html.document import both
from vramplan.report.html.markup import Html, el, joined
from vramplan.report.report_case import Case, family
from vramplan.report.report_facts import Report
from vramplan.report.timeline_plot import NARROW, WIDE, render_timeline

_RUNS = 3


def timelines(report: Report) -> Html:
    """The pictures, the first one unfolded; empty when nothing can be drawn."""
    return joined(_picture(case, first=i == 0) for i, case in enumerate(_chosen(report)))


def _chosen(report: Report) -> Iterator[Case]:
    """The largest peak of each family, the largest three of those."""
    largest: dict[str, Case] = {}
    for case in sorted(report.cases, key=lambda case: -case.peak):
        if case.comparison or not case.measured:
            largest.setdefault(family(case), case)
    yield from list(largest.values())[:_RUNS]


def _picture(case: Case, *, first: bool) -> Html:
    scenario, device = case.result.scenario, case.result.device
    try:
        run = forecast(scenario, device)
    except VramplanError:
        return Html()
    played = replay(run.program()) if device == "cuda" else None
    drawings = []
    for width in (WIDE, NARROW):
        picture = render_timeline(run.timeline, title=f"{scenario.name}, predicted", replay=played, width=width)
        unique = picture.replace(f"vp{width}-", f"vp{width}-{case.number}-")  # several pictures on one page
        drawings.append(Html(unique))
    heading = el("summary", el("b", scenario.name), el("span", f" {family(case)}, {device}", class_="soft"))
    body = el("div", *both(*drawings), class_="body")
    return el("details", heading, body, **({"open": "open"} if first else {}))
