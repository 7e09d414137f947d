"""A suite as text: the plan before it runs, the results after."""

from collections.abc import Sequence

from vramplan.measure.suite import Result, Run
from vramplan.measure.suite_time import seconds
from vramplan.predict.engine import predict_analytic
from vramplan.record import Device
from vramplan.report.layout import amount, table, table_unit


def render_plan(runs: Sequence[Run], steps: int, device: Device) -> str:
    """What would run: predicted peaks, limits and about how long each takes on a large card."""
    predictions = [predict_analytic(run.scenario, device=device) for run in runs]
    unit, factor = table_unit(max(predicted.ledger.peak for predicted in predictions))
    rows = [["scenario", "chunk", f"allocated {unit}", "reserved", "limit", "about s"]]
    minutes: dict[int, float] = {}
    for run, predicted in zip(runs, predictions, strict=True):
        reserved = predicted.peak_reserved
        limit = "" if run.memory_limit is None else amount(run.memory_limit, factor)
        duration = seconds(run.scenario, steps)
        minutes[run.chunk] = minutes.get(run.chunk, 0.0) + duration / 60
        sizes = [amount(predicted.ledger.peak, factor), amount(reserved, factor) if reserved else ""]
        cells = [*sizes, limit, f"{duration:.0f}"]
        rows.append([run.name, str(run.chunk), *cells])
    chunks = ", ".join(f"chunk {number} {value:.1f}" for number, value in minutes.items())
    return "\n".join([*table(rows, left=(0,)), "", f"{len(runs)} scenarios; minutes, about: {chunks}"])


def render_results(results: Sequence[Result]) -> str:
    """One line per run: predicted and measured peak, their difference, step time, how it ended; the verdict is last."""
    unit, factor = table_unit(max((result.predicted.ledger.peak for result in results), default=0))
    rows = [["scenario", f"predicted {unit}", "measured", "error %", "reserved", "measured", "ms/step", "outcome"]]
    rows += [_row(result, factor) for result in results]
    odd = [result.run.name for result in results if not result.as_expected]
    reused = sum(result.reused for result in results)
    verdict = f"all {len(results)} ended as predicted" if not odd else f"not as predicted: {', '.join(odd)}"
    return "\n".join(
        [*table(rows, left=(0, 7)), "", f"{len(results) - reused} measured, {reused} fresh already", verdict]
    )


def _row(result: Result, factor: int) -> list[str]:
    record, predicted = result.record, result.predicted
    cells = [result.run.name, amount(predicted.ledger.peak, factor)]
    complete = bool(record.ledger.entries) and result.record.outcome == "ok"
    if complete:
        error = 100 * (predicted.ledger.peak - record.ledger.peak) / record.ledger.peak
        cells += [amount(record.ledger.peak, factor), f"{error:+.2f}"]
    else:
        cells += ["", ""]
    on_card = complete and record.reserved and predicted.reserved
    both = (predicted.reserved, record.reserved)
    cells += [amount(max(side.values()), factor) for side in both] if on_card else ["", ""]
    outcome = record.outcome.value + ("" if result.as_expected else f" (expected {result.run.expected.value})")
    return [*cells, f"{record.timings.get('step_ms', 0):.1f}" if record.timings else "", outcome]
