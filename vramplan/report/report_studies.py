"""The studies of a report as tables of cells, which text, Markdown and HTML each draw in their own way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vramplan.compare import Pair
from vramplan.errors import VramplanError
from vramplan.ledger import Component
from vramplan.predict.optimizer import MIN_PAGED_SIZE
from vramplan.predict.paging import paging
from vramplan.record import Fit
from vramplan.report.comparison import percent
from vramplan.report.layout import amount, table_unit
from vramplan.report.report_case import Case
from vramplan.report.report_claims import Claimed, article_claims
from vramplan.report.report_facts import Report
from vramplan.report.report_pairs import DoublePair, OptimizerPair, Times
from vramplan.report.report_peaks import PeakGroup, counted_names
from vramplan.report.report_verdicts import FitCheck, Judgement, false_fits
from vramplan.report.report_words import counted
from vramplan.units import human

ARROW = " → "


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a cell: words, or amounts of memory with an arrow between them."""

    text: str = ""
    sizes: tuple[int, ...] = ()
    """Bytes; shown instead of the words."""
    case: Case | None = None
    """The result that the cell names."""
    small: str = ""
    """Said less loudly beside it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a study."""

    head: str
    short: str = ""
    """Its name where there is little room; empty for the first, whose cells name the row."""
    number: bool = True
    important: int = 0
    """Columns with the lowest figure go first where the page is narrow."""
    factor: int = 0
    """Bytes of the unit that its amounts share and its head names; 0 where each has its own."""

    def written(self, size: int) -> str:
        """An amount of this column."""
        return amount(size, self.factor) if self.factor else human(size)

    def text(self, cell: Cell) -> str:
        """A cell of this column on one line, without what is said less loudly."""
        return ARROW.join(map(self.written, cell.sizes)) if cell.sizes else cell.text


@dataclass(frozen=True)
class Study:
    """One table with its heading, what it shows, and what follows from it."""

    name: str
    heading: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    findings: tuple[str, ...] = ()


def studies(report: Report) -> tuple[Study, ...]:
    """Those that this report's results have something for."""
    makers = (_double, _paged, _peaks, _fits)
    return tuple(_finished(study) for make in makers for study in make(report))


def _finished(study: Study) -> Study:
    """The study without columns that no row has anything for, and with units in the heads of the others."""
    kept = [i for i in range(len(study.columns)) if any(row[i].text or row[i].sizes for row in study.rows)]
    rows = tuple(tuple(row[i] for i in kept) for row in study.rows)
    columns = (_with_unit(study.columns[i], [size for row in study.rows for size in row[i].sizes]) for i in kept)
    return replace(study, columns=tuple(columns), rows=rows)


def _with_unit(column: Column, sizes: Sequence[int]) -> Column:
    """Where a laptop's amounts stand beside a card's, no unit fits all: then each cell has its own."""
    amounts = [abs(size) for size in sizes if size]
    unit, factor = table_unit(max(amounts, default=0))
    if not amounts or min(amounts) < factor / 20:
        return column
    return replace(column, head=f"{column.head} {unit}", short=f"{column.short} {unit}", factor=factor)


def _double(report: Report) -> Iterator[Study]:
    if report.doubles:
        yield Study(
            name="double",
            heading="Double quantisation",
            note="Without it → with it. The constants are one fp32 per block of weights, or one byte per block and an "
            "fp32 per 256 blocks. Step times are medians, with the fastest and the slowest step.",
            columns=(
                Column("double quantisation", "", number=False, important=9),
                Column("on", "on", number=False, important=0),
                Column("bits per parameter", "bits", important=6),
                Column("constants", "constants", important=2),
                Column("saved", "saved", important=8),
                Column("at the peak", "at the peak", important=7),
                Column("predicted", "predicted", important=1),
                Column("ms per step", "ms per step", important=4),
                Column("slower", "slower", important=5),
            ),
            rows=tuple(map(_double_row, report.doubles)),
            findings=tuple(map(_claim, article_claims(report.doubles))),
        )


def _double_row(pair: DoublePair) -> tuple[Cell, ...]:
    state, predicted = pair.quant_state, pair.predicted
    return (
        _named(pair.double),
        Cell(pair.double.how),
        Cell(ARROW.join(f"{bits:.3f}" for bits in pair.bits)),
        Cell(sizes=(state.reference, state.other)),
        _saved(state),
        _saved(pair.peak),
        _saved(predicted) if predicted else Cell(),
        *_time_cells(pair.times),
    )


def _claim(claim: Claimed) -> str:
    return f"{claim.verdict.value}: articles say that {claim.said}; here {claim.found}"


def _paged(report: Report) -> Iterator[Study]:
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
        _named(pair.paged, small=pair.paged.result.scenario.optimizer),
        Cell(pair.paged.how),
        Cell(pair.plain.result.scenario.optimizer),
        Cell(_tensors(pair)),
        Cell(sizes=(states.reference, states.other)),
        Cell(sizes=(pair.managed,)),
        Cell(sizes=(outside.reference, outside.other)) if outside else Cell(),
        _saved(pair.peak),
        *_time_cells(pair.times),
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


def _peaks(report: Report) -> Iterator[Study]:
    if report.peaks:
        yield Study(
            name="peaks",
            heading="Where the peak is",
            note="Training runs by vocabulary and sequence: in which phase they peak, what is largest there, and "
            "between what shares of the peak logits and activations are.",
            columns=(
                Column("vocabulary", "", number=False, important=9),
                Column("sequence", "sequence", important=9),
                Column("batch", "batch", important=1),
                Column("runs", "runs", important=2),
                Column("peak in", "peak in", number=False, important=8),
                Column("largest there", "largest", number=False, important=7),
                Column("logits", "logits", important=6),
                Column("activations", "activations", important=5),
            ),
            rows=tuple(map(_peak_row, report.peaks)),
        )


def _peak_row(group: PeakGroup) -> tuple[Cell, ...]:
    return (
        Cell(f"{group.vocab:,}"),
        Cell(f"{group.seq:,}"),
        Cell(_span(f"{group.batches[0]:,}", f"{group.batches[-1]:,}")),
        Cell(str(len(group.cases))),
        Cell(counted_names(group.phases)),
        Cell(counted_names(group.largest)),
        *(Cell(_span(*_shares(group, part))) for part in (Component.LOGITS, Component.ACTIVATIONS)),
    )


def _shares(group: PeakGroup, part: Component) -> tuple[str, str]:
    low, high = group.share(part)
    return f"{low:.0%}", f"{high:.0%}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _fits(report: Report) -> Iterator[Study]:
    """Whole cards on which everything ran as predicted are counted, not listed."""
    listed = [check for check in report.fits if check.limit is not None or check.judgement is not Judgement.RIGHT]
    if listed:
        yield Study(
            name="verdicts",
            heading="Fit verdicts",
            note="Runs on a card, by the room that they had: what is predicted for that room, and how they ended.",
            columns=(
                Column("fit verdict of", "", number=False, important=9),
                Column("room", "room", important=6),
                Column("margin", "margin", important=5),
                Column("predicted", "predicted", number=False, important=7),
                Column("ended", "ended", number=False, important=7),
                Column("verdict was", "verdict was", number=False, important=8),
            ),
            rows=tuple(map(_fit_row, listed)),
            findings=(fits_sentence(report.fits),),
        )


def _fit_row(check: FitCheck) -> tuple[Cell, ...]:
    verdict = check.verdict
    return (
        _named(check.case, small="the allocator limited" if check.limit is not None else "the whole card"),
        Cell(sizes=(verdict.budget,)),
        Cell(sizes=(verdict.margin,)),
        Cell(verdict.word.value),
        Cell(check.case.outcome),
        Cell(check.judgement.value),
    )


def fits_sentence(checks: Sequence[FitCheck]) -> str:
    """How many runs that were predicted to fit ran out of memory, and which."""
    wrong, promised = false_fits(checks), sum(check.verdict.word is Fit.FITS for check in checks)
    if not wrong:
        return f"of {counted(promised, 'run')} predicted to fit, none ran out of memory"
    names = ", ".join(check.case.name for check in wrong)
    return f"of {counted(promised, 'run')} predicted to fit, {len(wrong)} ran out of memory: {names}"


def _named(case: Case, small: str = "") -> Cell:
    return Cell(case.name, case=case, small=small)


def _saved(pair: Pair) -> Cell:
    return Cell(sizes=(-pair.difference,), small=f"{-pair.relative:.1%}" if pair.relative else "")


def _time_cells(times: Times | None) -> tuple[Cell, Cell]:
    """Medians with their spreads, and by how much the second is slower."""
    if times is None:
        return Cell(), Cell()
    sides = (times.reference, times.other)
    text = ARROW.join(f"{side.median:,.1f}" for side in sides)
    spread = ARROW.join(f"{side.fastest:,.1f}-{side.slowest:,.1f}" for side in sides)
    sure = "beyond the spread" if times.beyond_spread else "within the spread"
    return Cell(text, small=spread), Cell(percent(times.slower), small=sure)
