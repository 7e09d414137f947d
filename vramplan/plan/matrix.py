"""Which models train on which cards: the longest of a few sequence lengths that fits, for every pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from vramplan.allocator import replay
from vramplan.catalog.gpus import gpu
from vramplan.plan.frontier import FUSED_ROWS
from vramplan.plan.limit import Limit, allocated_peak, sure_room
from vramplan.predict.engine import forecast
from vramplan.predict.overheads import workspaces
from vramplan.predict.quantization import quantized_parameters
from vramplan.record import SCHEMA
from vramplan.scenario import Scenario
from vramplan.timeline import Timeline

SEQS = (512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one card."""

    scenario: Scenario
    """With the card, and the longest sequence that fits; the shortest asked for when none does."""
    fits: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """Models down, cards across."""

    scenarios: tuple[Scenario, ...]
    cards: tuple[str, ...]
    seqs: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]
    """A row per scenario, a cell per card."""

    def to_json(self) -> dict[str, Any]:
        """The public JSON object, `kind: matrix`."""
        return {
            "schema": SCHEMA,
            "kind": "matrix",
            "gpus": list(self.cards),
            "seqs": list(self.seqs),
            "models": [
                {
                    "scenario": scenario.to_mapping(),
                    "cells": [
                        {"gpu": cell.scenario.gpu, "fits": cell.fits, "seq": cell.scenario.seq if cell.fits else None}
                        for cell in cells
                    ],
                }
                for scenario, cells in zip(self.scenarios, self.cells, strict=True)
            ],
        }


def matrix(scenarios: Sequence[Scenario], cards: Sequence[str], seqs: Sequence[int], limit: Limit) -> Matrix:
    """For every scenario on every card the longest of `seqs` that fits, fitting taken to be monotone between them."""
    lengths = tuple(sorted(seqs))
    cells = []
    for scenario in scenarios:
        runs = _Runs(limit)
        cells.append(tuple(_longest(replace(scenario, gpu=card), lengths, runs) for card in cards))
    return Matrix(tuple(scenarios), tuple(cards), lengths, tuple(cells))


def _longest(scenario: Scenario, seqs: tuple[int, ...], runs: "_Runs") -> Cell:
    """Bisection over the lengths."""
    low, high = 0, len(seqs)  # seqs[:low] fit, seqs[high:] do not
    while low < high:
        middle = (low + high) // 2
        if runs.fits(replace(scenario, seq=seqs[middle])):
            low = middle + 1
        else:
            high = middle
    return Cell(replace(scenario, seq=seqs[max(low - 1, 0)]), low > 0)


@dataclass(slots=True)
class _Run:
    """A run as all cards of its kind have it, and the rooms in which it is known to fit or not."""

    timeline: Timeline
    allocated: int
    enough: int
    """The least room in which it fitted."""
    too_little: int
    """The most room in which it did not."""


class _Runs:
    """The runs of one model, shared by the cards on which they are the same."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._known: dict[object, _Run] = {}

    def fits(self, scenario: Scenario) -> bool:
        """Whether the run fits its card: by what is known of other cards where that settles it, else by replay."""
        room = self._limit.room(scenario)
        run = self._run(scenario)
        if run.too_little < room < run.enough:
            if replay(run.timeline.parts, budget=room).oom is None:
                run.enough = room
            else:
                run.too_little = room
        return room >= run.enough

    def _run(self, scenario: Scenario) -> _Run:
        key = (scenario.seq, same_run(scenario))
        if key not in self._known:
            timeline = forecast(scenario, "cuda").timeline
            allocated = allocated_peak(timeline)
            self._known[key] = _Run(timeline, allocated, sure_room(allocated), allocated - 1)
        return self._known[key]


def same_run(scenario: Scenario) -> tuple[object, ...]:
    """Two cards for which this is equal have the same timeline of the scenario.

    Cards decide the size of cuBLAS's workspaces, the attention kernel (compute capability 8.0), the fused 4-bit product
    (small batches only), and how large the block of from_pretrained's warm-up may be (only for models of that size).
    """
    if not scenario.gpu:
        return ()
    card = gpu(scenario.gpu)
    kernels: object = card.capability >= (8, 0)
    if scenario.tokens <= FUSED_ROWS:
        kernels = (card.capability, card.multiprocessors)
    architecture = scenario.architecture
    quantized = quantized_parameters(architecture, scenario.quant)
    largest = quantized + 4 * (architecture.numel - quantized)  # at most a byte for a quantised weight, 4 for others
    return kernels, workspaces(card), card.capacity if card.capacity < 2 * largest else 0
