"""The gate itself: match, compare, judge."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vramplan.check.findings import Case, Check, Finding, FindingKind, Status
from vramplan.check.items import Item, Key, by_key
from vramplan.check.limits import DEFAULT_LIMITS, Limit, Reading, mirrored, readings
from vramplan.check.sameness import different_fields, other_changes
from vramplan.compare import Comparison, Pair, Row, compare
from vramplan.errors import UsageError
from vramplan.ledger import RESIDENT_COMPONENTS, Component, Phase
from vramplan.record import Fit, Outcome, Prediction, Record
from vramplan.units import human, human_change

#: What may be gone from a whole run without anything being lost.
_DISPENSABLE = frozenset({Component.ALLOCATOR, Component.UNKNOWN})
_RANK = {status: rank for rank, status in enumerate(Status)}


def check(
    new: Iterable[Item],
    baseline: Iterable[Item],
    limits: Sequence[Limit] = DEFAULT_LIMITS,
    *,
    allow_vanished: bool = False,
    notes: Sequence[str] = (),
) -> Check:
    """`new` against `baseline`, matched by scenario name, engine and device.

    A baseline whose files contradict themselves, and a check in which nothing is compared, are UsageErrors.
    """
    ours, theirs = by_key(new, "new results"), by_key(baseline, "baseline")
    if not ours.keys() & theirs.keys() and (allow_vanished or not theirs):
        raise UsageError(
            f"nothing to compare: no scenario of the new results ({_some(ours)}) is in the baseline ({_some(theirs)})",
            hint="scenarios are matched by name, engine and device; --update writes a baseline",
        )
    for item in theirs.values():
        if item.faults:
            raise UsageError(
                f"baseline: {item.source} contradicts itself: {item.faults[0]}",
                hint="it was changed by hand: restore it, or write it again with --update",
            )
    cases = match(ours, theirs, limits, allow_vanished=allow_vanished)
    return Check(cases, tuple(limits), allow_vanished, (*notes, *_idle(limits, cases)))


def match(
    new: Mapping[Key, Item], baseline: Mapping[Key, Item], limits: Sequence[Limit], *, allow_vanished: bool = False
) -> tuple[Case, ...]:
    """One case per key of either side, the worst first."""
    keys = dict.fromkeys((*baseline, *new))
    cases = [_case(key, baseline.get(key), new.get(key), limits, allow_vanished) for key in keys]
    return tuple(sorted(cases, key=lambda case: (_RANK[case.status], case.key)))


def _some(keys: Iterable[Key]) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "empty"


def _idle(limits: Sequence[Limit], cases: Sequence[Case]) -> Iterator[str]:
    """A note per limit that applied to nothing; limits that all did not are a UsageError: such a gate is none."""
    compared = [case.comparison for case in cases if case.comparison]
    idle = [limit for limit in limits if not any(any(readings(limit.subject, c)) for c in compared)]
    if compared and limits and len(idle) == len(limits):
        raise UsageError(f"no limit applies to any result: {', '.join(map(str, idle))}", hint=_what_applies(compared))
    if limits is not DEFAULT_LIMITS and compared:
        yield from (f"limit {limit} applied to nothing" for limit in idle)


def _what_applies(compared: Sequence[Comparison]) -> str:
    """What a limit can be on in these results."""
    rows = [row for comparison in compared for row in comparison.rows]
    phases = [phase for phase in Phase if any(row.phase is phase for row in rows)]
    components = [component for component in Component if any(row.component is component for row in rows)]
    counters = ("reserved", "device") if any(c.a.reserved and c.b.reserved for c in compared) else ()
    return f"these results have {', '.join(('peak', 'steady', 'phases', *counters, *phases, *components))}"


def _case(key: Key, baseline: Item | None, new: Item | None, limits: Sequence[Limit], allow_vanished: bool) -> Case:
    if baseline is None or new is None:
        outcome = outcome_of(new) if new else ""
        return Case(key, Status.NEW if new else Status.VANISHED, baseline, new, outcome=_unless_well(outcome))
    fields = different_fields(baseline.result, new.result)
    comparison = _comparison(baseline, new)
    findings = () if fields else tuple(_findings(baseline, new, comparison, limits, allow_vanished))
    before, after = outcome_of(baseline), outcome_of(new)
    return Case(
        key,
        _status(baseline, new, comparison, limits, failed=bool(findings), comparable=not fields),
        baseline,
        new,
        comparison=comparison,
        findings=findings,
        fields=fields,
        changes=other_changes(baseline.result, new.result),
        most=moved_most(comparison.rows) if comparison else None,
        outcome=f"{before} -> {after}" if before != after and after else _unless_well(after),
    )


def _comparison(baseline: Item, new: Item) -> Comparison | None:
    """The two side by side; None when either ended before it held anything, or they have no phase in common."""
    a, b = baseline.result, new.result
    return compare(a, b) if set(a.ledger.phases) & set(b.ledger.phases) else None


def outcome_of(item: Item) -> str:
    """How a measured run ended, or the verdict on a predicted one: `ok`, `oom`, `fits`; empty without a verdict."""
    if isinstance(item.result, Record):
        return item.result.outcome.value
    verdict = item.result.verdict
    return "" if verdict is None else (Fit.FITS if verdict.fits else Fit.NO).value


def _unless_well(outcome: str) -> str:
    return "" if outcome in (Outcome.OK, Fit.FITS) else outcome


def _well(item: Item) -> bool:
    return not _unless_well(outcome_of(item))


def _status(
    baseline: Item,
    new: Item,
    comparison: Comparison | None,
    limits: Sequence[Limit],
    *,
    failed: bool,
    comparable: bool,
) -> Status:
    if failed or not comparable:
        return Status.REGRESSED if failed else Status.INCOMPARABLE
    if _well(new) and not _well(baseline):
        return Status.IMPROVED
    if comparison is None or not _moved(comparison):
        return Status.EQUAL
    shrank = (
        not limit.allowance.allows(mirrored(reading.pair))
        for limit in limits
        for reading in readings(limit.subject, comparison)
    )
    return Status.IMPROVED if any(shrank) else Status.MOVED


def _moved(comparison: Comparison) -> bool:
    a, b = comparison.a, comparison.b
    return not comparison.equal or a.ledger.steady != b.ledger.steady or dict(a.reserved) != dict(b.reserved)


def moved_most(rows: Iterable[Row]) -> Row | None:
    """The row with the largest difference in either direction; growth wins a tie. None when nothing moved."""
    moved = [row for row in rows if row.pair.difference]
    return max(moved, key=lambda row: (abs(row.pair.difference), row.pair.difference), default=None)


def _grew_most(rows: Iterable[Row]) -> Row | None:
    grown = [row for row in rows if row.pair.difference > 0]
    return max(grown, key=lambda row: row.pair.difference, default=None)


def _findings(
    baseline: Item, new: Item, comparison: Comparison | None, limits: Sequence[Limit], allow_vanished: bool
) -> Iterator[Finding]:
    for fault in new.faults:
        yield Finding(FindingKind.INCONSISTENT, "totals", f"{new.source} contradicts itself: {fault}")
    yield from _worse_outcome(baseline, new)
    if comparison is None:
        return
    if not allow_vanished and _well(new):
        yield from _vanished(comparison)
    yield from _beyond_limits(comparison, limits)


def _beyond_limits(comparison: Comparison, limits: Sequence[Limit]) -> Iterator[Finding]:
    """A finding per quantity beyond a limit; the phase of the peak is not said again where it is the same growth."""
    said: set[object] = set()
    for limit in limits:
        for reading in readings(limit.subject, comparison):
            what = (reading.phase, reading.component, reading.pair, limit.allowance)
            if not limit.allowance.allows(reading.pair) and what not in said:
                said.add(what)
                yield _beyond(limit, reading)


def _worse_outcome(baseline: Item, new: Item) -> Iterator[Finding]:
    before, after = outcome_of(baseline), outcome_of(new)
    if _unless_well(after) and before != after:
        note = f": {new.result.note}" if isinstance(new.result, Record) and new.result.note else ""
        if isinstance(new.result, Prediction) and new.result.verdict:
            note = f": {human(-new.result.verdict.margin)} too much"
        yield Finding(FindingKind.OUTCOME, "outcome", f"outcome {before or 'unknown'} -> {after}{note}")
    elif isinstance(new.result, Record) and new.result.outcome is Outcome.OK and not new.result.ledger.entries:
        yield Finding(FindingKind.VANISHED, "entries", "the run ended ok and holds no memory: all entries are gone")


def _beyond(limit: Limit, reading: Reading) -> Finding:
    """The finding for growth beyond a limit, with the component that grew most behind it."""
    pair = reading.pair
    grown = f"{human_change(pair.reference, pair.other)} ({growth(pair)})"
    text = f"{reading.name} {grown}, limit {limit.allowance}"
    return Finding(FindingKind.LIMIT, reading.name, text, pair, culprit=_grew_most(reading.rows))


def growth(pair: Pair) -> str:
    """`+100.00 MiB, +1.66%`: the signed difference, and its share of the baseline where that is anything."""
    sign = "+" if pair.difference >= 0 else ""
    share = "" if pair.relative is None else f", {pair.relative:+.2%}"
    return f"{sign}{human(pair.difference)}{share}"


def _vanished(comparison: Comparison) -> Iterator[Finding]:
    """What the baseline holds and the new result has lost, where that is no way of saving memory."""
    a, b = comparison.a, comparison.b
    for phase in a.ledger.phases:
        if phase not in b.ledger.phases:
            pair = Pair(a.ledger.allocated(phase), 0)
            yield Finding(FindingKind.VANISHED, f"{phase.value} phase", f"the phase {phase.value} is gone", pair)
    unknown = [phase.value for phase in a.reserved if phase not in b.reserved]
    if unknown:
        text = f"reserved is gone from {', '.join(unknown)}: the new result does not know it"
        yield Finding(FindingKind.VANISHED, "reserved", text)
    if a.ledger.steady and not b.ledger.steady:
        text = f"steady is gone: {human(a.ledger.steady)} -> 0 B"
        yield Finding(FindingKind.VANISHED, "steady", text, comparison.steady)
    if isinstance(a, Prediction) and isinstance(b, Prediction) and a.verdict and not b.verdict:
        yield Finding(FindingKind.VANISHED, "verdict", "the verdict is gone: the new prediction has no budget")
    lost: dict[Component, list[Row]] = {}
    for row in comparison.rows:
        if row.pair.reference and not row.pair.other and _is_lost(row, comparison):
            lost.setdefault(row.component, []).append(row)
    for component, rows in lost.items():
        most = max(rows, key=lambda row: row.pair.reference)
        where = ", ".join(row.phase.value for row in rows)
        text = f"{component.value} is gone from {where}: {human(most.pair.reference)} -> 0 B"
        yield Finding(FindingKind.VANISHED, component.value, text, most.pair, culprit=most)


def _is_lost(row: Row, comparison: Comparison) -> bool:
    if row.component in RESIDENT_COMPONENTS:
        return True  # held to the end of the run: gone from one phase means broken, not improved
    held = any(r.pair.other for r in comparison.rows if r.component is row.component)
    return not held and row.component not in _DISPENSABLE
