"""An explained out-of-memory error as text for a terminal or a pipe. Pure: a value in, a string out; verdict last."""

from collections.abc import Iterator, Sequence

from vramplan.oom.answer import Explanation
from vramplan.oom.other_failures import Known
from vramplan.oom.remedies import Judgement
from vramplan.oom.shortage import GOOD_SHARE, Cause, Shortage
from vramplan.oom.usage import Group, Usage
from vramplan.report.layout import Page, bar, table, table_unit
from vramplan.report.oom_changes_text import advice_blocks, changes_lines, remedies_lines
from vramplan.report.oom_prediction_text import loaded_otherwise, prediction_lines
from vramplan.units import human

_BAR_CELLS = 24
#: Groups of live blocks that are shown; the rest is one line.
_GROUPS = 12


def render_oom(found: Explanation, page: Page) -> str:
    """One explanation in full."""
    if found.recognised is not None:
        return "\n".join(_recognised(found, found.recognised.known, page))
    blocks = [list(_head(found, page))]
    if found.shortage is not None:
        blocks.append(_shares(found.shortage, found.gpus, page))
        blocks.append(list(_fragmentation(found, found.shortage, page)))
    if found.usage is not None:
        blocks += _usage(found.usage, page)
    if found.against is not None and found.shortage is not None:
        blocks.append(list(prediction_lines(found.against, found.shortage, page)))
    blocks.append(remedies_lines(found, page))
    if found.against is not None:
        blocks += [changes_lines(found.against, page), *advice_blocks(found.against, page)]
    blocks.append(page.wrap(_verdict(found, page), indent="  "))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _recognised(found: Explanation, known: Known, page: Page) -> Iterator[str]:
    assert found.recognised is not None
    yield from page.wrap(f"{found.source}, line {found.recognised.line}: {found.recognised.text}", indent="  ")
    yield ""
    yield from page.wrap(known.meaning, indent="  ")
    yield from page.wrap(f"what to do: {known.advice}", indent="  ")
    yield ""
    where = "the GPU's memory" if known.on_gpu else "the computer's memory, not the GPU's"
    yield from page.wrap(f"{page.red(known.name)}: {where}; no sizes are known", indent="  ")


def _head(found: Explanation, page: Page) -> Iterator[str]:
    """What asked for how much, and when."""
    shortage = found.shortage
    if shortage is None:
        assert found.usage is not None
        yield from page.wrap(f"{found.source}: device {found.usage.device}, no request failed", indent="  ")
        return
    where = f"{found.source}, line {found.reported.line}" if found.reported else found.source
    when = f" in {found.moment.words}" if found.moment.words != "unknown" else ""
    others = found.reported.others if found.reported else found.usage.failures - 1 if found.usage else 0
    count = f" (the first of {others + 1} errors)" if others > 0 else ""
    yield from page.wrap(f"{where}: {page.bold('out of memory')}{when}{count}", indent="  ")
    purpose = found.purpose.words if found.purpose.words != "unknown" else "no stack tells what for"
    place = f", in {found.place}" if found.place else ""
    yield from page.wrap(f"asked for {page.bold(human(shortage.requested.bytes))}: {purpose}{place}", indent="  ")


def _shares(shortage: Shortage, gpus: Sequence[str], page: Page) -> list[str]:
    """How the card's memory was shared, in one unit."""
    total = shortage.capacity.bytes if shortage.capacity else shortage.reserved.bytes + shortage.free.bytes
    unit, factor = table_unit(total)
    rows = [("tensors of this process", shortage.allocated.bytes)]
    rows.append(("reserved, in no tensor", shortage.unallocated.bytes))
    if shortage.context is not None:
        rows.append(("this process, outside PyTorch", shortage.context.bytes))
    if shortage.others.bytes:
        rows.append(("other processes", shortage.others.bytes))
    if shortage.unexplained is not None:
        rows.append(("context and other processes", shortage.unexplained.bytes))
    rows.append(("free", shortage.free.bytes))
    room = min(_BAR_CELLS, max(page.width - 50, 0)) if page.width else _BAR_CELLS
    cells = [
        [words, f"{size / factor:.2f}", f"{size / total:.0%}" if total else "", bar(size / total if total else 0, room)]
        for words, size in rows
    ]
    names = f" ({' or '.join(gpus)})" if gpus else ""
    last = f"capacity{names}" if shortage.capacity else "in all, as far as is told"
    head = [f"{unit} on the card", "", "", ""]
    lines = table([head, *cells, [last, f"{total / factor:.2f}", "", ""]], left=(0, 3))
    if shortage.allowed is not None:
        lines += page.wrap(f"the process was allowed {human(shortage.allowed.bytes)}", indent="  ")
    if shortage.private_pools.bytes:
        pools = human(shortage.private_pools.bytes)
        lines += page.wrap(f"{pools} of the tensors' are in private pools, such as those of CUDA graphs", indent="  ")
    for other in shortage.listed:
        lines += page.wrap(f"process {other.pid} held {human(other.held.bytes)}", indent="  ")
    return lines


def _fragmentation(found: Explanation, shortage: Shortage, page: Page) -> Iterator[str]:
    """Whether the request would have fitted without fragmentation, without others, with another limit."""
    lacking, cause, usage = human(shortage.lacking), found.cause, found.usage
    share = shortage.unallocated.bytes / max(shortage.reserved.bytes, 1)
    unused = f"{human(shortage.unallocated.bytes)} ({share:.0%} of what was reserved)"
    if cause is Cause.LIMIT:
        text = f"the process's own limit stopped it: the card had {human(shortage.free.bytes)} free"
    elif cause is Cause.FRAGMENTATION:
        text = f"{lacking} were lacking, and {unused} were reserved but in no tensor: fragmentation alone explains it"
    else:
        perhaps = f"may explain it, which it seldom does below {GOOD_SHARE:.0%}"
        told = perhaps if found.fragmentation is Judgement.PERHAPS else "alone does not explain it"
        text = f"{lacking} were lacking; fragmentation {told}: {unused} were reserved in no tensor"
    yield from page.wrap(text, indent="  ")
    if usage is not None and usage.fits_expandable is not None:
        word = "meets" if usage.fits_expandable else "does not meet"
        yield from page.wrap(f"the same history replayed with expandable segments {word} the request", indent="  ")
    if cause is not Cause.LIMIT and shortage.others.bytes >= found.needed:
        yield from page.wrap("without the other processes it would have fitted", indent="  ")


def _usage(usage: Usage, page: Page) -> list[list[str]]:
    when = "when the request failed" if usage.shortage else "when the snapshot was taken"
    blocks = [[f"live {when}: {human(usage.live)}", *_groups(usage.held, page)]]
    if usage.peak > usage.live:
        blocks.append([f"live at the highest moment: {human(usage.peak)}", *_groups(usage.at_peak, page)])
    unit, factor = table_unit(max((pool.bytes for pool in usage.pools), default=0))
    head = [f"{unit} of segments", "segments", "reserved", "in use", "free", "largest free piece", "empty"]
    rows = [
        [pool.name, str(pool.segments)]
        + [f"{size / factor:.2f}" for size in (pool.bytes, pool.in_use, pool.free, pool.largest_free, pool.empty)]
        for pool in usage.pools
    ]
    if rows:
        lines = table([head, *rows])
        blocks.append(lines if page.fits(lines) else table([[*row[:1], *row[2:5]] for row in (head, *rows)]))
    return blocks


def _groups(groups: Sequence[Group], page: Page) -> list[str]:
    """The biggest groups of live blocks, the rest in one line."""
    unit, factor = table_unit(max((group.bytes for group in groups), default=0))
    shown, rest = groups[:_GROUPS], groups[_GROUPS:]
    rows = [
        [f"{g.bytes / factor:.2f}", str(g.count), g.component.value if g.component else "-", g.words, g.place]
        for g in shown
    ]
    if rest:
        size, count = sum(g.bytes for g in rest), sum(g.count for g in rest)
        rows.append([f"{size / factor:.2f}", str(count), "", f"{len(rest)} more places", ""])
    head = [unit, "blocks", "component", "what for", "where"]
    for columns in (5, 4, 3):
        lines = table([row[:columns] for row in (head, *rows)], left=(2, 3, 4))
        if page.fits(lines):
            break
    return lines


_CAUSES = {
    Cause.LIMIT: "the process's own limit",
    Cause.FRAGMENTATION: "fragmentation",
    Cause.OTHERS: "other processes on the card",
    Cause.DEMAND: "the run needs more than the card has",
}


def _verdict(found: Explanation, page: Page) -> str:
    """The last line: the cause, and the first thing that is enough."""
    if found.shortage is None:
        assert found.usage is not None
        return f"no request failed: {human(found.usage.live)} live in {human(found.usage.reserved)} reserved"
    text = f"{page.red('out of memory')}: {human(found.shortage.lacking)} lacking, {_cause(found)}"
    if found.against is not None and found.against.other_loading is not None:
        return text
    if found.remedy is not None:
        return f"{text}; {found.remedy.what} may be enough"
    perhaps = next((remedy for remedy in found.remedies if remedy.judgement is Judgement.PERHAPS), None)
    if perhaps is not None:
        text += f"; {perhaps.what} are worth a try"
    if found.against is None:
        return f"{text}; --scenario TARGET shows which change saves enough"
    if found.against.advice:
        labels = " + ".join(step.label for step in found.against.advice[0].steps)
        return f"{text}; {page.green('enough')}: {labels}"
    saving = next((saving for saving in found.against.savings if saving.enough), None)
    return (
        f"{text}; {page.green('enough')}: {saving.label}" if saving else f"{text}; no change that is known saves enough"
    )


def _cause(found: Explanation) -> str:
    against = found.against
    if against is not None and against.other_loading is not None:
        return loaded_otherwise(against.scenario, against.other_loading)
    assert found.cause is not None
    if found.cause is not Cause.DEMAND:
        return _CAUSES[found.cause]
    more = against is not None and against.held_more
    words = "the run held more than the scenario predicts" if more else _CAUSES[Cause.DEMAND]
    return f"most likely {words}" if found.fragmentation is Judgement.PERHAPS else words
