"""The closed form against the trace on a grid of scenarios: `make grid`, or `python -m benchmarks.grid [POINTS]`.

The traces, the slow part, are kept in a working file as they come, so that an interrupted grid goes on where it was;
the file goes when the report is written.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.grid_points import point, title
from benchmarks.grid_report import Row, markdown, summary
from vramplan.api import Engine, predict
from vramplan.errors import VramplanError, first_line
from vramplan.measure.environment import library_versions
from vramplan.predict.step import step_warnings
from vramplan.record import Prediction
from vramplan.scenario_file import scenario_from_mapping

POINTS = 168  # more than eight rounds through the 20 families of the catalogue
REPORTS = Path("reports")
WORKING = Path("build") / "grid-traces.jsonl"


def run(mapping: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """What one engine says about one point: bytes by phase and component, or why it says nothing."""
    try:
        return _facts(predict(scenario_from_mapping(mapping), engine))
    except VramplanError as error:
        return {"refused": str(error)}
    except Exception as error:  # one broken point must not cost the whole grid
        return {"failed": f"{type(error).__name__}: {first_line(error)}"}


def trace(index: int) -> dict[str, Any]:
    """What the trace says about a point, and how long that took."""
    began = time.perf_counter()
    said = run(point(index), "trace")
    return {"index": index, "seconds": round(time.perf_counter() - began, 2), **said}


def _facts(prediction: Prediction) -> dict[str, Any]:
    phases: dict[str, dict[str, int]] = {phase.value: {} for phase in prediction.ledger.phases}
    for entry in prediction.ledger.entries:
        if entry.component != "context":
            phases[entry.phase.value][entry.component.value] = entry.bytes
    doubts = step_warnings(prediction.scenario, "cuda") if prediction.engine == "analytic" else ()
    return {"phases": phases, "reserved": prediction.peak_reserved, "doubts": doubts}


def traces(indices: Iterable[int], working: Path, processes: int) -> dict[int, dict[str, Any]]:
    """The trace of every point, those of the working file not run again."""
    working.parent.mkdir(parents=True, exist_ok=True)
    done = {row["index"]: row for row in _read(working)}
    todo = [index for index in indices if index not in done]
    with working.open("a", encoding="utf-8") as file:
        for row in _run_all(todo, processes):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[row["index"]] = row
            print(f"{len(done)} traced, {row['seconds']:.1f} s: {title(point(row['index']))}", file=sys.stderr)
    return {index: done[index] for index in indices}


def _read(working: Path) -> Iterator[dict[str, Any]]:
    if working.exists():
        yield from map(json.loads, working.read_text(encoding="utf-8").splitlines())


def _run_all(indices: list[int], processes: int) -> Iterator[dict[str, Any]]:
    if processes == 1 or len(indices) < 2:
        yield from map(trace, indices)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(trace, index) for index in indices]):
            yield future.result()


def main() -> None:
    """Run the grid, write `reports/grid.md` and `reports/grid.json`, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", nargs="?", type=int, default=POINTS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--working", type=Path, default=WORKING)
    parser.add_argument("--keep", action="store_true", help="leave the working file, to look at the traces again")
    args = parser.parse_args()
    done = traces(range(args.points), args.working, args.processes)
    rows = [Row.of(point(index), run(point(index), "analytic"), said) for index, said in done.items()]
    about = {"date": datetime.now(UTC).date().isoformat(), "libraries": library_versions()}
    args.out.mkdir(parents=True, exist_ok=True)
    body = {**about, **summary(rows), "rows": [r.to_json() for r in rows]}
    (args.out / "grid.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    text = markdown(rows, about)
    (args.out / "grid.md").write_text(text, encoding="utf-8")
    if not args.keep:
        args.working.unlink(missing_ok=True)
    print(text)


if __name__ == "__main__":
    main()
