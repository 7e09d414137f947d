"""A suite of measurements: scenarios in order, in chunks, resumable; records are written as they finish. No torch."""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from vramplan.allocator import replay
from vramplan.errors import UsageError
from vramplan.measure.environment import library_versions
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast
from vramplan.record import Device, Outcome, Prediction, Record, load_result, save_result
from vramplan.scenario import Scenario
from vramplan.scenario_file import read_scenarios
from vramplan.units import MIB

#: The file that gives the order, beside its scenarios.
ORDER = "suite.toml"


@dataclass(frozen=True)
class Run:
    """One measurement of a suite."""

    chunk: int
    scenario: Scenario
    share: float | None = None
    """Of the least memory that is predicted to be enough: the allocator is limited to that; None for no limit."""

    @property
    def name(self) -> str:
        """The scenario's."""
        return self.scenario.name

    @cached_property
    def memory_limit(self) -> int | None:
        """Bytes that the allocator may reserve."""
        return None if self.share is None else int(self.share * least_memory(self.scenario)) // MIB * MIB

    @property
    def expected(self) -> Outcome:
        """How the run must end if the prediction is right."""
        return Outcome.OOM if self.share is not None and self.share < 1 else Outcome.OK


def read_suite(directory: Path, *, gpu: str = "", torch: str = "") -> tuple[Run, ...]:
    """Every run of the suite in its order; scenarios that name no card get `gpu`, and all run on `torch` if given."""
    try:
        order = tomllib.loads((directory / ORDER).read_text(encoding="utf-8"))
        chunks, limits = order["chunks"], order.get("limits", {})
        named = [(number, name) for number, names in enumerate(chunks, 1) for name in names]
    except OSError as error:
        raise UsageError(f"{directory} is no suite: {ORDER}: {error.strerror}", hint="such as scenarios/gpu") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{directory / ORDER}: {error}", hint='chunks = [["a", "b"], ["c"]]') from error
    if strangers := sorted(set(limits) - {name for _, name in named}):
        raise UsageError(f"{directory / ORDER}: limits of unknown runs: {', '.join(strangers)}", hint="see `chunks`")
    return tuple(Run(number, _scenario(directory, name, gpu, torch), limits.get(name)) for number, name in named)


def _scenario(directory: Path, name: str, gpu: str, torch: str) -> Scenario:
    found = read_scenarios(directory / f"{name}.yaml", {"name": name})
    if len(found) != 1:
        raise UsageError(
            f"{directory / name}.yaml has a matrix of {len(found)}", hint="a run of a suite is one scenario"
        )
    return msgspec.structs.replace(found[0], gpu=found[0].gpu or gpu, torch=torch or found[0].torch)


def chunk(runs: tuple[Run, ...], number: int | None) -> tuple[Run, ...]:
    """The runs of one chunk; all of them without a number."""
    if number is None:
        return runs
    chosen = tuple(run for run in runs if run.chunk == number)
    if not chosen:
        raise UsageError(f"there is no chunk {number}", hint=f"chunks: 1 to {max(run.chunk for run in runs)}")
    return chosen


@dataclass(frozen=True)
class Result:
    """A run with its prediction and its record."""

    run: Run
    predicted: Prediction
    record: Record
    reused: bool
    """Whether the record was there already."""

    @property
    def as_expected(self) -> bool:
        """Whether it ended as predicted."""
        return self.record.outcome is self.run.expected


def run_suite(
    runs: tuple[Run, ...],
    out: Path,
    measure: Callable[[Run], Record],
    *,
    device: Device,
    gpu: str,
    progress: Callable[[str], None],
) -> Iterator[Result]:
    """Measure what has no fresh record in `out` yet; each record is written before the next run starts.

    `gpu` is the card's name as the driver gives it; a record of another card is not fresh.
    """
    for number, run in enumerate(runs, 1):
        file = out / f"{run.name}.json"
        found = fresh_record(file, run, device, gpu)
        if found is None:
            progress(f"[{number}/{len(runs)}] measuring {run.name}")
            record = measure(run)
            save_result(record, file)
        else:
            progress(f"[{number}/{len(runs)}] {run.name}: the record is fresh")
            record = found
        yield Result(run, predict_analytic(run.scenario, device=device), record, reused=found is not None)


def fresh_record(file: Path, run: Run, device: Device, gpu: str) -> Record | None:
    """The record in `file` if it answers the same question: scenario, limit, device, card and library versions.

    A run that was ended from outside or failed is measured again.
    """
    if not file.exists():
        return None
    try:
        found = load_result(file)
    except UsageError:  # written by another version, or damaged: measured again
        return None
    if not isinstance(found, Record):
        return None
    same = (
        found.outcome in (Outcome.OK, Outcome.OOM)
        and found.device == device
        and found.scenario.to_mapping() == run.scenario.to_mapping()
        and dict(found.libraries) == library_versions(run.scenario)
        and found.environment.get("gpu", "") == gpu
        and found.environment.get("memory_limit") == run.memory_limit
    )
    return found if same else None


def least_memory(scenario: Scenario) -> int:
    """The least that the allocator must be allowed to reserve for the run to be predicted to complete, to 1 MiB.

    Less than the uncapped run reserves: before it gives up the allocator gives cached segments back.
    """
    program = forecast(scenario, "cuda").program()
    played = replay(program)
    low, high = played.peak.allocated - 1, played.reserved
    while high - low > MIB:
        middle = (low + high) // 2
        if replay(program, budget=middle).oom is None:
            high = middle
        else:
            low = middle
    return high
