"""Benchmarks as ratios: each time is divided by that of a reference workload, timed right before and after it.

Times are of this process's processor use, not of the clock on the wall, so a busy machine changes little. Machines
differ, and so does one machine from hour to hour; the ratio of two times of one run differs much less.
The ratios are kept in `benchmarks/baseline.json`:

    make bench                            # prints them beside the baseline's; fails when one is worse than its limit
    make bench ARGS=--update-baseline     # makes this run the baseline, on purpose; limits stay as they are
    make bench ARGS='-k predict'          # some of them

Memory is in `extra_info`: `rss_peak` is the process's highest so far, `peak_bytes` what Python allocates at most in one
more run under tracemalloc, where that is not too slow.

A benchmark that is over its limit once is worth a second run; over it twice, something got slower.
"""

import gc
import json
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vramplan.files import write_whole
from vramplan.report.layout import table

BASELINE = Path(__file__).parent / "baseline.json"
#: Worse than the baseline's ratio by this factor is a failure, unless the benchmark's entry says otherwise.
LIMIT = 1.5
#: Benchmarks of other processes, whose time this process does not use itself.
ON_THE_WALL = ("test_the_command",)


def python_work() -> int:
    """The reference for everything that is Python: small objects, dictionaries, sorting, JSON."""
    rows = [{"name": f"block-{i % 97}", "bytes": (i * 7919) % 1_000_003, "part": (i, i % 13)} for i in range(4000)]
    totals: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: (row["part"][1], row["bytes"])):  # type: ignore[index]
        totals[str(row["name"])] = totals.get(str(row["name"]), 0) + int(row["bytes"])  # type: ignore[call-overload]
    return len(json.dumps([rows, totals]))


def torch_work() -> float:
    """The reference for what runs the real libraries: many small operations of PyTorch, and autograd over them."""
    import torch

    weight = torch.ones(64, 64, requires_grad=True)
    x = torch.ones(16, 64)
    for _ in range(100):
        x = torch.tanh(x @ weight) * 0.5 + x
    x.sum().backward()
    return float(x.detach().sum())


REFERENCES: dict[str, Callable[[], object]] = {"python": python_work, "torch": torch_work}


@dataclass
class Ratios:
    """What this run found, by benchmark."""

    found: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Lines for the end of the run."""


_RATIOS = pytest.StashKey[Ratios]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-baseline", action="store_true", help="make this run's ratios the baseline")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RATIOS] = Ratios()
    config.addinivalue_line("markers", "reference(name): the workload that a benchmark is related to (python, torch)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=timer_of(item)))


def timer_of(item: pytest.Item) -> Callable[[], float]:
    """The clock of a benchmark and of its reference."""
    return time.perf_counter if item.name in ON_THE_WALL else time.process_time


@pytest.fixture(autouse=True)
def related(request: pytest.FixtureRequest) -> Iterator[None]:
    """Relates the benchmark of the test, if there is one, to its reference."""
    if "benchmark" not in request.fixturenames:
        yield
        return
    benchmark: Any = request.getfixturevalue("benchmark")
    marker = request.node.get_closest_marker("reference")
    work = REFERENCES[marker.args[0] if marker else "python"]
    timer = timer_of(request.node)
    before = fastest(work, timer)
    yield
    if benchmark.stats is None or benchmark.stats.stats.rounds == 0:
        return  # disabled, or failed
    ratio = benchmark.stats.stats.min / min(before, fastest(work, timer))
    benchmark.extra_info |= {"ratio": ratio, "rss_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    request.config.stash[_RATIOS].found[f"{Path(request.node.path).stem}::{request.node.name}"] = ratio


def fastest(work: Callable[[], object], timer: Callable[[], float], rounds: int = 9) -> float:
    """Seconds of the fastest of some runs: the one that was disturbed least."""
    work()
    times = []
    for _ in range(rounds):
        start = timer()
        work()
        times.append(timer() - start)
    return min(times)


@pytest.fixture
def traced(benchmark: Any) -> Callable[[Callable[[], object]], None]:
    """Runs a function once more, before it is timed, and notes what Python allocates at most in `extra_info`."""

    def run(function: Callable[[], object]) -> None:
        gc.collect()
        tracemalloc.start()
        try:
            function()
            benchmark.extra_info["peak_bytes"] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return run


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the end of the run."""
    return request.config.stash[_RATIOS].notes.append


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    found = session.config.stash[_RATIOS].found
    if session.config.getoption("--update-baseline"):
        update(found)
    elif session.exitstatus == 0 and worse(found, known()):
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    ratios = config.stash[_RATIOS]
    for line in ratios.notes:
        terminalreporter.write_line(line)
    if not ratios.found:
        return
    terminalreporter.section("ratios to the reference workload")
    for line in compared(ratios.found, known()):
        terminalreporter.write_line(line)
    slower = worse(ratios.found, known())
    count = len(ratios.found)
    if config.getoption("--update-baseline"):
        terminalreporter.write_line(f"wrote {count} ratios to {BASELINE.name}")
    elif slower:
        terminalreporter.write_line(f"{len(slower)} of {count} worse than their limits: {', '.join(slower)}")
    else:
        terminalreporter.write_line(f"{count} benchmarks within their limits")


def known() -> dict[str, dict[str, float]]:
    """The baseline: ratio and limit by benchmark; empty when there is none yet."""
    if not BASELINE.exists():
        return {}
    body: dict[str, dict[str, float]] = json.loads(BASELINE.read_text(encoding="utf-8"))["benchmarks"]
    return body


def worse(found: dict[str, float], baseline: dict[str, dict[str, float]]) -> list[str]:
    """The benchmarks that are slower than their limits allow."""
    limits = {name: entry["ratio"] * entry.get("limit", LIMIT) for name, entry in baseline.items()}
    return [name for name, ratio in found.items() if ratio > limits.get(name, float("inf"))]


def compared(found: dict[str, float], baseline: dict[str, dict[str, float]]) -> list[str]:
    """A row per benchmark: its ratio now and in the baseline, by how much it moved, and what is allowed."""
    rows = [["benchmark", "ratio", "baseline", "now / then", "limit"]]
    for name, ratio in sorted(found.items()):
        entry = baseline.get(name)
        cells = ["new", "", ""] if entry is None else [f"{entry['ratio']:.2f}", f"{ratio / entry['ratio']:.2f}"]
        rows.append([name, f"{ratio:.2f}", *cells, *([] if entry is None else [f"{entry.get('limit', LIMIT):.2f}"])])
    return table(rows)


def update(found: dict[str, float]) -> None:
    """Put this run's ratios into the baseline; benchmarks that did not run keep theirs, and all keep their limits."""
    entries = known()
    for name, ratio in found.items():
        limit = {"limit": entries[name]["limit"]} if "limit" in entries.get(name, {}) else {}
        entries[name] = {"ratio": float(f"{ratio:.4g}"), **limit}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    body = {"unit": "times the reference workload", "python": python, "benchmarks": dict(sorted(entries.items()))}
    write_whole(BASELINE, json.dumps(body, indent=1) + "\n")
