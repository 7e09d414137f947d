"""A data set's outlook as text: lengths, batches, and what of them the card has room for. Pure; no verdict in it."""

from collections.abc import Iterator, Sequence

from vramplan.dataset.histogram import histogram
from vramplan.dataset.lengths import Cut, Lengths
from vramplan.dataset.outlook import Outlook, Risk, Room, Sampler
from vramplan.dataset.outlook_json import PERCENTS
from vramplan.plan.frontier import Row
from vramplan.report.layout import SMALLEST_BAR, Page, bar, bar_room, fitting_table, table, table_unit
from vramplan.report.verdict_text import verdict_word


def render_outlook(outlook: Outlook, page: Page, *, frontier: Sequence[Row] = ()) -> list[str]:
    """The lines of one outlook; with the rows of a plan's frontier also what each of them would cut."""
    lines = [*_header(outlook, page), "", *_histogram(outlook.survey.lengths, page), "", *_percentiles(outlook, page)]
    lines += ["", *_batches(outlook, page), *_feed(outlook, page)]
    if outlook.room:
        lines += ["", *_room(outlook, outlook.room, page)]
    if frontier:
        lines += ["", *_frontier(outlook.survey.lengths, frontier, page)]
    return lines


def _header(outlook: Outlook, page: Page) -> Iterator[str]:
    lengths, seq = outlook.survey.lengths, outlook.scenario.seq
    yield from page.wrap(
        f"{page.bold(outlook.survey.name)}: {_count(lengths.samples, 'sample')}, {_count(lengths.tokens, 'token')}, "
        f"{lengths.shortest:,} to {lengths.longest:,} a sample, {lengths.tokens / lengths.samples:,.1f} on average",
        indent="  ",
    )
    if outlook.survey.skipped:
        yield f"{_count(outlook.survey.skipped, 'malformed line')} left out"
    cut = lengths.cut(seq)
    if cut.samples and not _splits(outlook):
        yield from page.wrap(f"truncated at {seq:,} tokens (seq): {_cut(cut, lengths)}", indent="  ")
    if outlook.feed.sampler is Sampler.PACKED:
        rows = outlook.rows
        full = rows.tokens / (rows.samples * seq)
        yield from page.wrap(
            f"packed ({outlook.feed.packing.value}) into {_count(rows.samples, 'row')} of at most {seq:,} tokens, "
            f"{_percent(full)} full",
            indent="  ",
        )


def _splits(outlook: Outlook) -> bool:
    """Whether long samples are split between rows, so that nothing of them is lost."""
    return outlook.feed.sampler is Sampler.PACKED and outlook.feed.packing.splits


def _histogram(lengths: Lengths, page: Page) -> list[str]:
    bins = histogram(lengths)
    most = max(found.samples for found in bins)
    rows = [["tokens", "samples", ""]]
    rows += [
        [f"{found.low:,}-{found.high:,}", f"{found.samples:,}", _percent(found.samples / lengths.samples)]
        for found in bins
    ]
    plain = table(rows, left=())
    cells = bar_room(plain, page)
    if cells < SMALLEST_BAR:
        return plain
    drawn = ["", *(bar(found.samples / most, cells) for found in bins)]
    return table([[*row, picture] for row, picture in zip(rows, drawn, strict=True)], left=(3,))


def _percentiles(outlook: Outlook, page: Page) -> list[str]:
    """Samples as they stand in the file, and batches as they are padded."""
    lengths = outlook.survey.lengths
    head = ["tokens at", *(f"{float(percent):g}%" for percent in PERCENTS), "longest"]
    rows = [
        head,
        ["samples", *(f"{lengths.percentile(percent):,}" for percent in PERCENTS), f"{lengths.longest:,}"],
        ["batches", *(f"{outlook.batch_percentile(percent):,}" for percent in PERCENTS), f"{outlook.cells[-1].seq:,}"],
    ]
    return fitting_table(rows, page, left=("tokens at",), less_important=("25%", "1%", "75%", "90%", "99.9%"))


def _batches(outlook: Outlook, page: Page) -> list[str]:
    """What the median, the p99 and the longest batch take."""
    unit, factor = table_unit(max(cell.prediction.ledger.peak for cell in outlook.cells))
    on_card = any(cell.prediction.reserved for cell in outlook.cells)
    judged = any(cell.prediction.verdict for cell in outlook.cells)
    rows = [["batch", "tokens", f"{unit} allocated", *(["reserved", "device"] if on_card else []), "peaks in"]]
    rows[0] += [""] if judged else []
    for cell in outlook.cells:
        prediction = cell.prediction
        row = [cell.name, f"{prediction.scenario.batch} x {cell.seq:,}", f"{prediction.ledger.peak / factor:.2f}"]
        if on_card:
            row += [f"{prediction.peak_reserved / factor:.2f}", f"{prediction.peak_on_device / factor:.2f}"]
        row.append(prediction.ledger.peak_phase.value)
        rows.append(row + ([verdict_word(prediction.verdict, page)] if judged else []))
    return fitting_table(rows, page, left=("batch", "peaks in", ""), less_important=("reserved", "peaks in"))


def _feed(outlook: Outlook, page: Page) -> list[str]:
    feed = outlook.feed
    how = {
        Sampler.RANDOM: "random batches",
        Sampler.GROUPED: "batches grouped by length, the longest first",
        Sampler.PACKED: "random batches of packed rows",
    }[feed.sampler]
    multiple = f", to a multiple of {feed.multiple}" if feed.multiple > 1 else ""
    text = f"{how}, padded to the longest in each{multiple}: {_count(outlook.batches.count, 'micro-batch')} an epoch"
    lines = page.wrap(f"{text}, {_percent(outlook.padding)} of their tokens padding", indent="  ")
    counted = "; the mask that padding gives attention is counted" if outlook.longest.padding else ""
    lines += page.wrap(f"the longest batch decides whether it fits{counted}", indent="  ")
    return lines + [line for note in outlook.notes for line in page.wrap(note, indent="  ")]


def _room(outlook: Outlook, room: Room, page: Page) -> Iterator[str]:
    lengths, batch = outlook.survey.lengths, outlook.longest.batch
    if not room.limit:
        text = f"sequence limit at batch {batch}: none, not even one token fits"
    elif room.cut.samples and _splits(outlook):
        text = f"sequence limit at batch {batch}: {room.limit:,} tokens; packing splits what is longer"
    elif room.cut.samples:
        text = f"sequence limit at batch {batch}: {room.limit:,} tokens; to truncate there cuts "
        text += f"{_cut(room.cut, lengths)}, to drop what is longer {_tokens(room.cut.dropped, lengths)}"
    else:
        text = (
            f"sequence limit at batch {batch}: none below the longest sample, all {lengths.longest:,} tokens of it fit"
        )
    yield from page.wrap(text, indent="  ")
    if room.risk:
        yield from _risk(outlook, room.risk, page)


def _risk(outlook: Outlook, risk: Risk, page: Page) -> Iterator[str]:
    if not risk.fitting:
        yield from page.wrap(f"{page.red('risk')}: no batch fits, not even the shortest", indent="  ")
        return
    median = outlook.cells[0].seq
    begin = "the median batch fits, but" if median <= risk.fitting else "not even the median batch fits:"
    text = f"{page.red('risk')}: {begin} {_percent(risk.share)} of the micro-batches ({_about(risk.expected)} of "
    text += f"{outlook.batches.count:,} an epoch) are longer than the {risk.fitting:,} tokens that fit; "
    if outlook.feed.sampler is Sampler.GROUPED:
        text += "the longest comes first, so the first step runs out of memory"
    else:
        text += f"out of memory in micro-batch {_about(risk.until)} on average"
    yield from page.wrap(text, indent="  ")
    if outlook.feed.sampler is not Sampler.GROUPED:
        *early, (_, epoch) = risk.chances
        told = [f"{_percent(chance)} by micro-batch {number:,}" for number, chance in early]
        yield from page.wrap(f"chance of it: {', '.join([*told, f'{_percent(epoch)} in an epoch'])}", indent="  ")


def _frontier(lengths: Lengths, rows: Sequence[Row], page: Page) -> list[str]:
    """What the longest sequence of each batch would take from the data set."""
    table_rows = [["batch", "longest sequence", "samples beyond", "tokens cut", "tokens dropped"]]
    for row in rows:
        cut = lengths.cut(row.scenario.seq)
        table_rows.append(
            [
                f"{row.scenario.batch}",
                f"{row.scenario.seq:,}",
                _of(cut.samples, lengths.samples),
                _of(cut.truncated, lengths.tokens),
                _of(cut.dropped, lengths.tokens),
            ]
        )
    return fitting_table(table_rows, page, left=(), less_important=("tokens dropped", "tokens cut"))


def _cut(cut: Cut, lengths: Lengths) -> str:
    """Samples that are truncated, and the tokens lost with that."""
    share = _percent(cut.samples / lengths.samples)
    return f"{_count(cut.samples, 'sample')} ({share}), {_tokens(cut.truncated, lengths)}"


def _tokens(count: int, lengths: Lengths) -> str:
    return f"{_count(count, 'token')} ({_percent(count / lengths.tokens)})"


def _of(part: int, whole: int) -> str:
    return f"{part:,} ({_percent(part / whole)})" if part else "-"


def _count(number: int, what: str) -> str:
    """`1 sample`, `2 micro-batches`."""
    ending = "" if number == 1 else "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{ending}"


def _about(number: float) -> str:
    """A number that is expected: two digits where it is small."""
    return f"{number:,.0f}" if number >= 20 else f"{number:.2g}"


def _percent(share: float) -> str:
    """Never 0 % or 100 % for what is only nearly so."""
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{share:.1%}"
