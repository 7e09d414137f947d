"""The comparison as a page and a plot."""

import io
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy import REPORTS
from benchmarks.peers.ask import Answer, Answers
from benchmarks.peers.rows import Row, rows
from benchmarks.peers.tools import TOOLS

KINDS = ("allocated", "reserved")


@dataclass(frozen=True, slots=True)
class Score:
    """How far a tool is from the measurements, in per cent; negative is toward out of memory."""

    tool: str
    answered: int
    allocated: tuple[float, ...]
    reserved: tuple[float, ...]
    milliseconds: float
    """Median of one estimate."""

    @property
    def means(self) -> tuple[float, float]:
        """Mean magnitudes: allocated, reserved."""
        return _magnitude(self.allocated), _magnitude(self.reserved)

    @property
    def toward_oom(self) -> float:
        """The largest share of the reserved memory that it missed; 0 where it never says too little."""
        return min(0.0, *self.reserved)


def _magnitude(errors: Sequence[float]) -> float:
    return statistics.fmean(map(abs, errors)) if errors else math.nan


def error(said: int, measured: float) -> float:
    """Relative error in per cent; negative is toward out of memory."""
    return (said / measured - 1) * 100


def score(answers: Answers, asked: Sequence[Row], only: str = "") -> Score:
    """The tool's errors over the rows that it answers, or over those of one source."""
    by_id = {row.id: row for row in asked if only in ("", row.set)}
    pairs = [(answer, by_id[answer.row]) for answer in answers.given if answer.row in by_id]
    return Score(
        tool=answers.tool,
        answered=len(pairs),
        allocated=tuple(error(answer.allocated, row.allocated) for answer, row in pairs),
        reserved=tuple(error(answer.reserved, row.reserved) for answer, row in pairs),
        milliseconds=statistics.median(answer.seconds for answer in answers.given) * 1000,
    )


def page(scores: Sequence[Score], every: Sequence[Answers], asked: Sequence[Row], date: str) -> str:
    """The Markdown page."""
    lines = [
        "# The field's estimators on the same measurements",
        "",
        f"{len(asked)} configurations measured on real GPUs by others ([public/](public/README.md)), asked of every "
        f"estimator that installs from the package index and runs offline, on {date}. Errors are (predicted - measured)"
        " / measured; `make peers` does it again.",
        "",
        "| tool | answered | allocated, mean error | reserved, mean error | worst toward OOM | ms per estimate |",
        "|---|--:|--:|--:|--:|--:|",
        *(_score_line(item, len(asked)) for item in scores),
        "",
        "![mean errors by tool](peers.svg)",
        "",
        "Every tool gets every input that it accepts: the exact parameter count, the shape, rank, targets, optimizer, "
        "dtype, attention and checkpointing. None is told a measurement. The time is of the second estimate in a warm "
        "process.",
        "",
        "| tool | its number | what it cannot be told |",
        "|---|---|---|",
        *(f"| {tool.requirement} | {tool.number} | {tool.untold} |" for tool in TOOLS),
        "",
        *_by_set(every, asked),
        *_refusals(every),
        *_every_row(every, asked),
    ]
    return "\n".join(lines) + "\n"


def _score_line(item: Score, asked: int) -> str:
    allocated, reserved = item.means
    return (
        f"| {item.tool} | {item.answered} of {asked} | {allocated:.2f} % | {reserved:.2f} % "
        f"| {item.toward_oom:.1f} % | {_milliseconds(item.milliseconds)} |"
    )


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _by_set(every: Sequence[Answers], asked: Sequence[Row]) -> list[str]:
    """Mean errors by source: a tool whose constants come from one of them is tested by the others."""
    sets = list(dict.fromkeys(row.set for row in asked))
    heads = [f"{name} ({sum(row.set == name for row in asked)}), {kind}" for name in sets for kind in KINDS]
    lines = ["## By source: mean error", "", f"| tool | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for answers in every:
        parts = [score(answers, asked, only=name) for name in sets]
        cells = [f"{value:.2f} %" for part in parts for value in part.means]
        lines.append(f"| {answers.tool} | {' | '.join(cells)} |")
    return [*lines, ""]


def _refusals(every: Sequence[Answers]) -> list[str]:
    said = [f"- {item.tool}, {row}: {reason}" for item in every for row, reason in item.refused]
    return ["Refused:", "", *said, ""] if said else []


def _every_row(every: Sequence[Answers], asked: Sequence[Row]) -> list[str]:
    tools = [item.tool for item in every]
    by_tool = {item.tool: {answer.row: answer for answer in item.given} for item in every}
    lines = ["## Every configuration: error on reserved", "", f"| configuration | GiB | {' | '.join(tools)} |"]
    lines.append("|---|--:|" + "--:|" * len(tools))
    for row in asked:
        cells = []
        for tool in tools:
            answer = by_tool[tool].get(row.id)
            cells.append(f"{error(answer.reserved, row.reserved):+.1f} %" if answer else "-")
        lines.append(f"| {row.id} | {row.reserved / 2**30:.2f} | {' | '.join(cells)} |")
    return lines


def plot(scores: Sequence[Score]) -> bytes:
    """Mean errors as bars, logarithmic: the tools differ by two orders of magnitude."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    options = {"svg.hashsalt": "vramplan", "svg.fonttype": "none", "font.family": "sans-serif"}
    with mpl.rc_context(options):
        figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(scores) + 1.2), layout="constrained")
        places = range(len(scores))
        for offset, kind, color in ((-0.19, 0, "#0b6e99"), (0.19, 1, "#e08e0b")):
            values = [item.means[kind] for item in scores]
            label = KINDS[kind]
            bars = axes.barh([place + offset for place in places], values, height=0.36, color=color, label=label)
            axes.bar_label(bars, labels=[f"{value:.2g} %" for value in values], padding=3, fontsize=8)
        axes.set_yticks(list(places), [item.tool for item in scores])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xticks([0.1, 1, 10, 100], ["0.1 %", "1 %", "10 %", "100 %"])
        axes.set_xlim(right=max(max(item.means) for item in scores) * 2.5)
        axes.set_xlabel("mean error, logarithmic")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper right")
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return picture.getvalue()


def render_peers() -> tuple[str, bytes]:
    """The page and the plot of the answers in reports/peers.json, the best tool first."""
    body = json.loads((REPORTS / "peers.json").read_text(encoding="utf-8"))
    every = [
        Answers(
            said["tool"],
            tuple(Answer(**given) for given in said["given"]),
            tuple((row, reason) for row, reason in said["refused"]),
        )
        for said in body["answers"]
    ]
    with tempfile.TemporaryDirectory() as directory:
        asked = rows(Path(directory))
    order = {answers.tool: score(answers, asked) for answers in every}
    every.sort(key=lambda answers: order[answers.tool].means)
    scores = [order[answers.tool] for answers in every]
    return page(scores, every, asked, body["date"]), plot(scores)
