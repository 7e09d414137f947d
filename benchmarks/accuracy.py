"""Predicts every published GPU measurement in reports/public and renders the errors: `make accuracy`.

Run `python benchmarks/accuracy.py [--engine analytic] [--engine trace]`; writes reports/accuracy.{md,json}.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import vramplan
from vramplan.ledger import Phase
from vramplan.record import Prediction
from vramplan.scenario_file import scenario_from_mapping

REPORTS = Path(__file__).parent.parent / "reports"
PUBLIC = REPORTS / "public"
TRAINING = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP)


def _allocated(*phases: Phase) -> Callable[[Prediction], int]:
    return lambda p: max(p.ledger.allocated(phase) for phase in phases)


#: What each published number is compared with (reports/public/README.md defines them).
METRICS: Mapping[str, Callable[[Prediction], int]] = {
    "train_peak_allocated": _allocated(*TRAINING),
    "train_peak_reserved": lambda p: max(p.reserved.values()),
    "forward_peak": _allocated(Phase.FORWARD, Phase.LOSS),
    "backward_peak": _allocated(Phase.BACKWARD),
    "step_peak": _allocated(Phase.STEP),
}
#: The 4080 harness reports its phases for the first step and cumulatively: another quantity.
NOT_COMPARED = {("rtx4080", "forward_peak"), ("rtx4080", "backward_peak")}


@dataclass(frozen=True, slots=True)
class Error:
    """One published number and our prediction of it."""

    row: str
    set: str
    fit: str
    group: str
    engine: str
    metric: str
    measured: int
    predicted: int

    @property
    def percent(self) -> float:
        """(predicted - measured) / measured; negative is toward out of memory."""
        return (self.predicted - self.measured) / self.measured * 100


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors of one metric: repeats of a configuration are averaged first."""

    configurations: int
    mean: float
    median: float
    worst: float


def errors(engine: str) -> Iterator[Error]:
    """Every comparable published number against the engine's prediction."""
    predictions: dict[str, Prediction] = {}
    for line in (PUBLIC / "measurements.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["group"] not in predictions:
            predictions[row["group"]] = _predict(row["scenario"], engine)
        for metric, read in METRICS.items():
            if metric in row["measured"] and (row["set"], metric) not in NOT_COMPARED:
                measured, predicted = row["measured"][metric], read(predictions[row["group"]])
                yield Error(row["id"], row["set"], row["fit"], row["group"], engine, metric, measured, predicted)


def _predict(scenario: Mapping[str, Any], engine: str) -> Prediction:
    config = json.loads((PUBLIC / "models" / f"{scenario['model']}.json").read_text())
    named = {**config, "_name_or_path": scenario["model"]}
    return vramplan.predict(scenario_from_mapping({**scenario, "model": named}), engine)


def summarize(found: Iterable[Error]) -> Summary:
    """Mean, median and worst of the absolute errors, in per cent; the worst keeps its sign."""
    groups: dict[str, list[float]] = {}
    for error in found:
        groups.setdefault(error.group, []).append(error.percent)
    means = [statistics.fmean(values) for values in groups.values()]
    absolute = [abs(value) for value in means]
    return Summary(len(means), statistics.fmean(absolute), statistics.median(absolute), max(means, key=abs))


def render(found: list[Error]) -> str:
    """The page: a summary per engine and metric, then every row's peaks."""
    exact = [error for error in found if error.fit == "exact"]
    lines = [
        "# Accuracy on published GPU measurements",
        "",
        "Rendered by `make accuracy` from [public/](public/README.md); nothing in vramplan is fitted to these rows.",
        "Errors are (predicted - measured) / measured; repeats of a configuration count once; `fit: exact` rows.",
        "",
        "| engine | metric | configurations | mean | median | worst |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for engine in dict.fromkeys(error.engine for error in found):
        for metric in METRICS:
            s = summarize(e for e in exact if e.engine == engine and e.metric == metric)
            lines.append(
                f"| {engine} | {metric} | {s.configurations} | {s.mean:.2f} % | {s.median:.2f} % | {s.worst:+.2f} % |"
            )
    lines += [
        "",
        "| row | fit | engine | metric | predicted MiB | measured MiB | error |",
        "|---|---|---|---|--:|--:|--:|",
    ]
    for e in found:
        if e.metric.startswith("train_peak"):
            sizes = f"{e.predicted / 2**20:.1f} | {e.measured / 2**20:.1f}"
            lines.append(f"| {e.row} | {e.fit} | {e.engine} | {e.metric} | {sizes} | {e.percent:+.2f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write reports/accuracy.md and reports/accuracy.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine", action="append", choices=["analytic", "trace"])
    engines = parser.parse_args().engine or ["analytic", "trace"]
    found = [error for engine in engines for error in errors(engine)]
    page = render(found)
    (REPORTS / "accuracy.md").write_text(page)
    (REPORTS / "accuracy.json").write_text(json.dumps([asdict(error) for error in found], indent=0) + "\n")
    print(page[: page.index("| row |")])


if __name__ == "__main__":
    main()
