"""The emulated cards' figures as a Markdown page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.nocard.figures import ENGINES, Row
from vramplan.units import GIB

_WHAT = ("allocated", "reserved")
_SUMMARY = ("torch", "card", "engine", "of", "runs", "peak, mean", "peak, worst", "phases, mean", "phases, worst")
_EACH = ("torch", "card", "scenario", "GiB allocated", "trace", "analytic", "GiB reserved", "trace", "analytic")

_HEAD = """# Both engines against PyTorch's own code, on emulated cards

{count} training runs, generations and merges by the real libraries and the CUDA builds of torch {torch}, with a
CUDA runtime that runs no kernels ({date}, `make emulated`, [benchmarks/nocard](../benchmarks/nocard/__init__.py)).
Operators, autograd, the choice of attention kernels, workspaces and the caching allocator are PyTorch's own, so
allocated and reserved are what they would be on the card, but for what cuDNN's and cuBLAS's engines take inside
themselves. It is no measurement: no time, no context, no value means anything here, and nothing of it is among the
cards' records.

Errors of the predicted peak, over the whole run and in every phase:

"""


def render(body: Mapping[str, Any]) -> str:
    """The page of what `emulated.json` holds."""
    rows: Sequence[Row] = body["rows"]
    versions = " and ".join(dict.fromkeys(row["torch"] for row in rows))
    head = _HEAD.format(count=len(rows), torch=versions, date=body["date"])
    static = sum(row["static"] == row[f"{engine}_static"] for row in rows for engine in ENGINES)
    named = max(row["unknown"] / max(phase["allocated"] for phase in row["emulated"].values()) for row in rows)
    return (
        head
        + _table(_SUMMARY, _summary(rows))
        + f"\nStatic components (weights, constants, adapters, optimizer states) are equal to the byte in {static} of"
        f" {len(ENGINES) * len(rows)} comparisons. The tracker left at most {named:.2%} of a peak unnamed.\n\n"
        + _table(_EACH, _each(rows))
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["--"] * 3 + ["--:"] * (len(head) - 3), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _summary(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for torch, card in dict.fromkeys((row["torch"], row["card"]) for row in rows):
        mine = [row for row in rows if (row["torch"], row["card"]) == (torch, card)]
        for engine in ENGINES:
            for what in _WHAT:
                peaks = [peak_error(row, engine, what) for row in mine]
                phases = [error for row in mine for error in _phase_errors(row, engine, what)]
                yield torch, card, engine, what, str(len(mine)), *_spread(peaks), *_spread(phases)


def _spread(errors: Sequence[float]) -> tuple[str, str]:
    return f"{mean(map(abs, errors)):.2%}", f"{max(errors, key=abs):+.2%}"


def _each(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        cells = []
        for what in _WHAT:
            cells.append(f"{_peak(row['emulated'], what) / GIB:.2f}")
            cells += [f"{peak_error(row, engine, what):+.2%}" for engine in ENGINES]
        yield row["torch"], row["card"], row["scenario"], *cells


def _peak(phases: Mapping[str, Mapping[str, int]], what: str) -> int:
    return max(phase[what] for phase in phases.values())


def peak_error(row: Row, engine: str, what: str) -> float:
    """Relative error of the run's highest allocated or reserved, signed."""
    return _peak(row[engine], what) / _peak(row["emulated"], what) - 1


def _phase_errors(row: Row, engine: str, what: str) -> Iterator[float]:
    for name, phase in row["emulated"].items():
        yield row[engine][name][what] / phase[what] - 1
