"""Calibrations from measured runs: what the process held on the card that was no tensor. No torch."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

from vramplan.catalog.calibration import Calibration
from vramplan.catalog.gpus import gpu_of_driver
from vramplan.errors import CannotRun
from vramplan.record import Outcome, Record
from vramplan.units import human


def calibration_of(record: Record) -> tuple[str, Calibration]:
    """The catalogue's name of the record's card, and what the record says about its context and workspaces."""
    if record.outcome is not Outcome.OK:
        raise CannotRun(f"the calibration run ended with {record.outcome.value}: {record.note}", hint="try again")
    facts = record.environment
    name = gpu_of_driver(facts["gpu"])
    if not name:
        raise CannotRun(
            f"the catalogue has no card '{facts['gpu']}'", hint="`vramplan list gpus` shows those that it has"
        )
    if "workspaces" not in facts:  # they are read in the pass that names every tensor, which may end by itself
        raise CannotRun(
            "the calibration run did not learn cuBLAS's workspaces", hint="free the card's memory, and try again"
        )
    made = Calibration(
        gpu=facts["gpu"],
        context=record.context,
        workspaces=facts["workspaces"],
        driver=facts["driver"],
        torch=record.libraries["torch"],
        date=facts["date"][:10],
    )
    return name, made


@dataclass(frozen=True, slots=True)
class Recorded:
    """What all records of one card say together."""

    name: str
    """The catalogue's."""
    context: int
    """The median run's, in bytes: a figure that one of them had."""
    workspaces: int
    """What most of them had."""
    origin: str
    """Driver, versions, dates and how far the runs were apart."""


def recorded(records: Iterable[Record]) -> tuple[Recorded, ...]:
    """One per card of the catalogue that the records are of, by training runs that ended well.

    A run with paged states is left out: what the driver counts outside the allocator is context and managed pages.
    """
    found: dict[str, list[Calibration]] = {}
    for name, made in _usable(records):
        found.setdefault(name, []).append(made)
    return tuple(_together(name, runs) for name, runs in sorted(found.items()))


def _usable(records: Iterable[Record]) -> Iterator[tuple[str, Calibration]]:
    for record in records:
        facts = record.environment
        texts = (facts.get("gpu"), facts.get("driver"), facts.get("date"), record.libraries.get("torch"))
        right = all(isinstance(text, str) for text in texts) and isinstance(facts.get("workspaces"), int)
        trained = record.outcome is Outcome.OK and record.scenario.method.trains and record.device == "cuda"
        if right and trained and record.context and not facts.get("managed") and gpu_of_driver(facts["gpu"]):
            yield calibration_of(record)


def _together(name: str, runs: Sequence[Calibration]) -> Recorded:
    contexts = [run.context for run in runs]
    spread = f", {human(min(contexts))} to {human(max(contexts))}" if min(contexts) != max(contexts) else ""
    number = f"median of {len(runs)} runs{spread}" if len(runs) > 1 else "1 run"
    parts = [
        f"driver {_several(run.driver for run in runs)}",
        f"torch {_several(run.torch for run in runs)}",
        _several(run.date for run in runs),
    ]
    most = Counter(run.workspaces for run in runs).most_common(1)[0][0]
    return Recorded(name, median_low(contexts), most, f"{', '.join(parts)}, {number}")


def _several(values: Iterable[str]) -> str:
    different = sorted(set(values))
    return different[0] if len(different) == 1 else f"{different[0]} to {different[-1]}"
