"""From files to a report: every record beside the closed form's answer, other engines' answers, pairs of runs."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vramplan.check.items import WRITERS, Item, read_file, result_files
from vramplan.compare import compare
from vramplan.errors import UsageError, VramplanError
from vramplan.record import Device, Outcome, Prediction, Record
from vramplan.report.report_case import Case, Miss, question
from vramplan.report.report_facts import Report
from vramplan.report.report_pairs import double_pairs, optimizer_pairs
from vramplan.report.report_peaks import peak_groups
from vramplan.report.report_verdicts import Judge, fit_checks
from vramplan.scenario import Scenario

Predict = Callable[[Scenario, Device], Prediction]


def read_report(paths: Iterable[Path], predict: Predict, judge: Judge) -> Report:
    """The report on the records and predictions of files and directories.

    A named file that holds no result is a UsageError; one found in a directory is listed as skipped.
    """
    items: list[Item] = []
    skipped: list[str] = []
    read: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint=WRITERS)
        for file in result_files(path):
            if file.resolve() in read:
                continue
            read.add(file.resolve())
            try:
                items += read_file(file)
            except UsageError as error:
                if file == path:
                    raise
                skipped.append(error.message)
    if not items:
        raise UsageError("there is no record and no prediction to report on", hint="; ".join(skipped[:3]) or WRITERS)
    return make_report(items, predict, judge, skipped=skipped)


def make_report(items: Sequence[Item], predict: Predict, judge: Judge, *, skipped: Iterable[str] = ()) -> Report:
    """The report on results that were read.

    `predict` is the closed form, asked once per scenario and device; `judge` what it says about a budget, asked for
    every run on a card.
    """
    known: dict[tuple[str, Device], Prediction | str] = {}
    with _without_collector():
        cases = tuple(_case(number, item, predict, known) for number, item in enumerate(items, 1))
        fits = tuple(fit_checks(cases, judge))
    return Report(
        cases=cases,
        misses=tuple(_misses(cases)),
        doubles=tuple(double_pairs(cases)),
        optimizers=tuple(optimizer_pairs(cases)),
        peaks=peak_groups(cases),
        fits=fits,
        skipped=tuple(skipped),
    )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Many predictions make millions of tuples and no cycles; looking for cycles among them takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _case(number: int, item: Item, predict: Predict, known: dict[tuple[str, Device], Prediction | str]) -> Case:
    record = item.result
    if not isinstance(record, Record):
        return Case(number, item, None)
    if record.outcome is not Outcome.OK or not record.ledger.entries or not record.ledger.peak:
        return Case(number, item, None, record.note or f"ended as {record.outcome.value}")
    key = question(record.scenario), record.device
    if key not in known:
        try:
            known[key] = predict(record.scenario, record.device)
        except VramplanError as error:
            known[key] = f"not predicted: {error.message}"
    answer = known[key]
    if isinstance(answer, str):
        return Case(number, item, None, answer)
    try:
        return Case(number, item, compare(answer, record))
    except UsageError as error:
        return Case(number, item, None, f"not compared: {error.message}")


def _misses(cases: Sequence[Case]) -> Iterator[Miss]:
    """The closed form's misses, then those of other engines' predictions that were given with the records."""
    compared = [(case, case.comparison) for case in cases if case.comparison]
    yield from (Miss("analytic", case, comparison) for case, comparison in compared)
    records: dict[tuple[str, str], list[Case]] = {}
    for case, _ in compared:
        records.setdefault((question(case.result.scenario), case.result.device), []).append(case)
    for other in cases:
        if not other.measured and other.result.engine != "analytic":
            for case in records.get((question(other.result.scenario), other.result.device), []):
                yield Miss(other.result.engine, case, compare(other.result, case.result))
