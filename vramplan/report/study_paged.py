"""Pairs of runs with an ordinary and a paged optimizer, as a table."""

from collections.abc import Iterator

from vramplan.errors import VramplanError
from vramplan.predict.optimizer import MIN_PAGED_SIZE
from vramplan.predict.paging import paging
from vramplan.report.report_facts import Report
from vramplan.report.report_pairs import OptimizerPair
from vramplan.report.report_study import Cell, Column, Study, named, saved, time_cells
from vramplan.units import human


def paged_study(report: Report) -> Iterator[Study]:
    """The study, where there is a pair."""
    if report.optimizers:
        yield Study(
            name="paged",
            heading="Paged optimizers",
            note=f"Ordinary → paged. States of tensors with {MIN_PAGED_SIZE:,} elements and more are in managed "
            "memory, which PyTorch's allocator does not count; what the driver counts outside the allocator says "
            "whether they are on the card.",
            columns=(
                Column("paged optimizer", "", number=False, important=9),
                Column("on", "on", number=False, important=0),
                Column("instead of", "instead of", number=False, important=5),
                Column("tensors paged", "tensors paged", important=1),
                Column("states in the allocator", "states", important=6),
                Column("managed", "managed", important=8),
                Column("outside the allocator", "outside", important=4),
                Column("saved at the peak", "peak saved", important=7),
                Column("ms per step", "ms per step", important=2),
                Column("slower", "slower", important=3),
            ),
            rows=tuple(map(_paged_row, report.optimizers)),
            findings=tuple(sentence for pair in report.optimizers for sentence in _where(pair)),
        )


def _paged_row(pair: OptimizerPair) -> tuple[Cell, ...]:
    states, outside = pair.states, pair.outside
    return (
        named(pair.paged, small=pair.paged.result.scenario.optimizer),
        Cell(pair.paged.how),
        Cell(pair.plain.result.scenario.optimizer),
        Cell(_tensors(pair)),
        Cell(sizes=(states.reference, states.other)),
        Cell(sizes=(pair.managed,)),
        Cell(sizes=(outside.reference, outside.other)) if outside else Cell(),
        saved(pair.peak),
        *time_cells(pair.times),
    )


def _tensors(pair: OptimizerPair) -> str:
    """`64 of 128`: how many tensors are large enough that their states are paged; none are on a CPU."""
    result = pair.paged.result
    try:
        found = paging(result.scenario, result.device).tensors
    except VramplanError:
        return ""
    return f"{sum(t.count for t in found if t.paged):,} of {sum(t.count for t in found):,}"


def _where(pair: OptimizerPair) -> Iterator[str]:
    """Where the paged states live, by what was measured."""
    if not pair.managed:
        rest = ", and what the steps differ by is not paging" if pair.times else ""
        yield f"{pair.paged.name}: no state is in managed memory{rest}"
    if not pair.managed or pair.outside is None:
        return
    more = pair.outside.difference
    share = min(max(more / pair.managed, 0.0), 1.0)
    yield (
        f"{pair.paged.name}: the driver counts {human(more)} more outside the allocator than with the ordinary "
        f"optimizer, of {human(pair.managed)} in managed memory: {share:.0%} of it is on the card"
    )
