"""Which models train on which cards: the longest of a few sequence lengths that fits, for every pair."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from vramplan.allocator import replay
from vramplan.catalog.gpus import gpu
from vramplan.plan.limit import Limit, allocated_peak, sure_room
from vramplan.predict.forecast import Forecast, forecast
from vramplan.predict.gemm_4bit import NEVER_FUSED_ROWS, fused_gemm_4bit
from vramplan.predict.overheads import workspaces
from vramplan.predict.quantization import is_quantized, quantized_parameters
from vramplan.predict.stops import stops_of_card
from vramplan.record import SCHEMA
from vramplan.scenario import Method, Scenario
from vramplan.units import GIB

SEQS = (512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one card."""

    scenario: Scenario
    """With the card, and the longest sequence that fits; the shortest asked for when none does."""
    fits: bool
    """Whether any does; no where the card ends the run at its first step."""


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
    """For every scenario on every card the longest of `seqs` that fits, tensors taken to grow with the length."""
    lengths = tuple(sorted(seqs))
    cells = []
    for scenario in scenarios:
        runs = _Runs(limit)
        cells.append(tuple(_longest(replace(scenario, gpu=card), lengths, runs) for card in cards))
    return Matrix(tuple(scenarios), tuple(cards), lengths, tuple(cells))


def _longest(scenario: Scenario, seqs: tuple[int, ...], runs: "_Runs") -> Cell:
    """Bisection over the lengths by what the tensors take, then down from there until one fits."""
    if any(stops_of_card(scenario)):
        return Cell(replace(scenario, seq=seqs[0]), fits=False)
    low, high = 0, len(seqs)  # tensors of seqs[:low] have room, those of seqs[high:] do not
    while low < high:
        middle = (low + high) // 2
        if runs.may_fit(replace(scenario, seq=seqs[middle])):
            low = middle + 1
        else:
            high = middle
    fitting = next((seq for seq in reversed(seqs[:low]) if runs.fits(replace(scenario, seq=seq))), None)
    return Cell(replace(scenario, seq=fitting or seqs[0]), fitting is not None)


@dataclass(slots=True)
class _Run:
    """A run as all cards of its kind have it, and the rooms in which it is known to fit or not."""

    forecast: Forecast
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
        self._cards: dict[object, str] = {}  # the first card of each kind: its runs stand for the others'

    def may_fit(self, scenario: Scenario) -> bool:
        """Whether there is room for the run's tensors at least."""
        room = self._limit.room(scenario)
        return weights_floor(scenario) <= room and self._run(scenario).allocated <= room

    def fits(self, scenario: Scenario) -> bool:
        """Whether the run fits its card: by what is known of other cards where that settles it, else by replay."""
        room, run = self._limit.room(scenario), self._run(scenario)
        if run.too_little < room < run.enough:
            if replay(run.forecast.program(), budget=room).oom is None:
                run.enough = room
            else:
                run.too_little = room
        return room >= run.enough

    def _run(self, scenario: Scenario) -> _Run:
        kind = same_run(scenario)
        key = (scenario.seq, kind)
        if key not in self._known:
            same = replace(scenario, gpu=self._cards.setdefault(kind, scenario.gpu))
            run = forecast(same, "cuda")
            allocated = allocated_peak(run.timeline)
            self._known[key] = _Run(run, allocated, sure_room(allocated), allocated - 1)
        return self._known[key]


def same_run(scenario: Scenario) -> tuple[object, ...]:
    """Two cards for which this is equal have the same timeline of the scenario.

    Compute capabilities decide on attention kernels and their tiles. Cards also decide how large cuBLAS's workspaces
    are, fused 4-bit products (of few rows only), the buffers in which gradients of vectors are added up, and how
    large the block of from_pretrained's warm-up may be (only for models of that size).
    """
    if not scenario.gpu:
        return ()
    card = gpu(scenario.gpu)
    warm_up = card.capacity if card.capacity < weights_floor(scenario) + 2 * GIB else 0
    sums = card.multiprocessors if _trains_vectors(scenario) else 0
    return card.capability, _fused(scenario), workspaces(card, scenario.torch), sums, warm_up


def _trains_vectors(scenario: Scenario) -> bool:
    """Whether norms' weights, biases or DoRA's magnitudes may be trained, whose gradients are sums over tokens."""
    whole = scenario.method is Method.FULL or bool(scenario.lora.modules_to_save)
    return whole or scenario.lora.dora


def weights_floor(scenario: Scenario) -> int:
    """Bytes of the base model's weights alone, block constants and upcasts left out: no run takes less."""
    architecture, quant = scenario.architecture, scenario.quant
    quantized = quantized_parameters(architecture, quant)
    packed = quantized // 2 if quant.type.four_bit else quantized
    return packed + (architecture.numel - quantized) * scenario.dtype.bytes


def _fused(scenario: Scenario) -> tuple[bool, ...]:
    """Which of the model's matrices are multiplied in 4 bits on the scenario's card, in either type of input."""
    few = [rows for rows in _rows(scenario) if rows <= NEVER_FUSED_ROWS]
    if not scenario.quant.type.four_bit or not few:
        return ()
    card, block = gpu(scenario.gpu), scenario.quant.block_size
    shapes = {w.in_out for w, _ in scenario.architecture.counted if is_quantized(w, scenario.quant)}
    return tuple(
        fused_gemm_4bit(card.capability, card.multiprocessors, kind, rows, outputs, inputs, block)
        for inputs, outputs in sorted(shapes)
        for kind in (scenario.compute_dtype.value, "float32")
        for rows in few
    )


def _rows(scenario: Scenario) -> Iterator[int]:
    """How many rows the products of each of the run's passes have."""
    yield scenario.tokens
    if scenario.method is Method.INFERENCE:  # when decoding, a token per sample
        yield scenario.batch
    if scenario.evaluation is not None:
        yield replace(scenario, batch=scenario.evaluation.batch).tokens
