"""Predicts every published GPU measurement, and our own, and renders the errors: `make accuracy`.

Run `python benchmarks/accuracy.py [--engine analytic] [--engine trace]`; writes reports/accuracy.{md,json}, and with
both engines vramplan/catalog/engine_errors.json, by which a verdict is `tight`.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import vramplan
from vramplan.files import write_whole
from vramplan.ledger import Phase
from vramplan.record import Outcome, Prediction, Record, load_result
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping

REPORTS = Path(__file__).parent.parent / "reports"
PUBLIC = REPORTS / "public"
RECORDS = REPORTS / "records"
ENGINE_ERRORS = Path(vramplan.__file__).parent / "catalog" / "engine_errors.json"
TRAINING = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.STEP)


def _allocated(*phases: Phase) -> Callable[[Prediction | Record], int]:
    return lambda p: max(p.ledger.allocated(phase) for phase in phases)


#: What each published number is compared with (reports/public/README.md defines them).
METRICS: Mapping[str, Callable[[Prediction | Record], int]] = {
    "train_peak_allocated": _allocated(*TRAINING),
    "train_peak_reserved": lambda p: p.peak_reserved,
    "forward_peak": _allocated(Phase.FORWARD, Phase.LOSS),
    "backward_peak": _allocated(Phase.BACKWARD),
    "step_peak": _allocated(Phase.STEP),
}
#: What a verdict compares with a budget. Published measurements tell the part inside the allocator, our records all.
DEVICE = "device"
JUDGED = ("train_peak_reserved", DEVICE)
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


def published() -> Iterator[dict[str, Any]]:
    """The rows of reports/public/measurements.jsonl."""
    return map(json.loads, (PUBLIC / "measurements.jsonl").read_text().splitlines())


def errors(engine: str) -> Iterator[Error]:
    """Every comparable published number against the engine's prediction."""
    predictions: dict[str, Prediction] = {}
    for row in published():
        if row["group"] not in predictions:
            predictions[row["group"]] = vramplan.predict(public_scenario(row["scenario"]), engine)
        for metric, read in METRICS.items():
            if metric in row["measured"] and (row["set"], metric) not in NOT_COMPARED:
                measured, predicted = row["measured"][metric], read(predictions[row["group"]])
                yield Error(row["id"], row["set"], row["fit"], row["group"], engine, metric, measured, predicted)


def recorded(engine: str, directory: Path) -> Iterator[Error]:
    """Every number of the CUDA training runs in a directory of records against the engine's prediction."""
    for path in sorted(directory.rglob("*.json")):
        found = load_result(path)
        if not isinstance(found, Record) or found.device != "cuda" or found.outcome is not Outcome.OK:
            continue
        if not found.scenario.method.trains:
            continue
        prediction = vramplan.predict(found.scenario, engine)
        whole = {**METRICS, DEVICE: lambda p: p.peak_on_device}
        for metric, read in whole.items():
            name = path.relative_to(directory).with_suffix("").as_posix()
            group = found.scenario.name or name
            yield Error(name, found.scenario.gpu, "exact", group, engine, metric, read(found), read(prediction))


def engine_errors(found: Iterable[Error]) -> dict[str, dict[str, float | int | str]]:
    """For each engine the interval of its errors, as `vramplan.predict.verdict.ErrorInterval` defines it."""
    judged = [error for error in found if error.fit == "exact" and error.metric in JUDGED]
    whole = {(error.engine, error.row) for error in judged if error.metric == DEVICE}
    judged = [e for e in judged if e.metric == DEVICE or (e.engine, e.row) not in whole]
    return {
        engine: _interval([error for error in judged if error.engine == engine])
        for engine in dict.fromkeys(error.engine for error in judged)
    }


def _interval(judged: list[Error]) -> dict[str, float | int | str]:
    means = _means(judged)
    low, *_, high = statistics.quantiles(means, n=20, method="inclusive")
    cards = ", ".join(sorted({error.set for error in judged}))
    return {
        "low": round(low / 100, 4),
        "high": round(high / 100, 4),
        "configurations": len(means),
        "runs": len(judged),
        "origin": f"{len(means)} configurations ({len(judged)} runs) measured on {cards}; "
        f"extremes {min(means):+.1f} % and {max(means):+.1f} %; reports/accuracy.json",
    }


def public_config(model: str) -> dict[str, Any]:
    """The config.json of a model of the published measurements."""
    config: dict[str, Any] = json.loads((PUBLIC / "models" / f"{model}.json").read_text())
    return config


def public_scenario(scenario: Mapping[str, Any]) -> Scenario:
    """The scenario of a published measurement: its model is the configuration that lies beside it."""
    named = {**public_config(scenario["model"]), "_name_or_path": scenario["model"]}
    return scenario_from_mapping({**scenario, "model": named})


def summarize(found: Iterable[Error], engine: str, metric: str) -> Summary:
    """Of an engine's errors in rows of `fit: exact`, in per cent: magnitudes, except that the worst keeps its sign."""
    means = _means(e for e in found if (e.fit, e.engine, e.metric) == ("exact", engine, metric))
    absolute = [abs(value) for value in means]
    return Summary(len(means), statistics.fmean(absolute), statistics.median(absolute), max(means, key=abs))


def _means(found: Iterable[Error]) -> list[float]:
    groups: dict[str, list[float]] = {}
    for error in found:
        groups.setdefault(error.group, []).append(error.percent)
    return [statistics.fmean(values) for values in groups.values()]


def render(found: list[Error]) -> str:
    """The page: a summary per engine and metric, then every row's peaks."""
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
            s = summarize(found, engine, metric)
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
    found = [error for engine in engines for error in (*errors(engine), *recorded(engine, RECORDS))]
    page = render(found)
    (REPORTS / "accuracy.md").write_text(page)
    (REPORTS / "accuracy.json").write_text(json.dumps([asdict(error) for error in found], indent=0) + "\n")
    if len(engines) == 2:
        write_whole(ENGINE_ERRORS, json.dumps(engine_errors(found), indent=1) + "\n")
    print(page[: page.index("| row |")])


if __name__ == "__main__":
    main()
