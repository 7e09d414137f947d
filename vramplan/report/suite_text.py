"""A suite as text: the plan before it runs, the results after."""

from collections.abc import Sequence

from vramplan.measure.suite import Result, Run, seconds
from vramplan.predict.engine import predict_analytic
from vramplan.record import Device
from vramplan.report.layout import table
from vramplan.units import gib


def render_plan(runs: Sequence[Run], steps: int, device: Device) -> str:
    """What would run: predicted peaks, limits and about how long each takes on a large card."""
    rows = [["scenario", "chunk", "allocated GiB", "reserved", "limit", "about s"]]
    minutes: dict[int, float] = {}
    for run in runs:
        predicted = predict_analytic(run.scenario, device=device)
        reserved = max(predicted.reserved.values(), default=0)
        limit = "" if run.memory_limit is None else gib(run.memory_limit)
        duration = seconds(run.scenario, steps)
        minutes[run.chunk] = minutes.get(run.chunk, 0.0) + duration / 60
        cells = [gib(predicted.ledger.peak), gib(reserved) if reserved else "", limit, f"{duration:.0f}"]
        rows.append([run.name, str(run.chunk), *cells])
    chunks = ", ".join(f"chunk {number} {value:.1f}" for number, value in minutes.items())
    return "\n".join([*table(rows, left=(0,)), "", f"{len(runs)} scenarios; minutes, about: {chunks}"])


def render_results(results: Sequence[Result]) -> str:
    """One line per run: predicted and measured peak, their difference, step time, how it ended; the verdict is last."""
    rows = [["scenario", "predicted GiB", "measured", "error %", "reserved", "measured", "ms/step", "outcome"]]
    rows += [_row(result) for result in results]
    odd = [result.run.name for result in results if not result.as_expected]
    reused = sum(result.reused for result in results)
    verdict = f"all {len(results)} ended as predicted" if not odd else f"not as predicted: {', '.join(odd)}"
    return "\n".join(
        [*table(rows, left=(0, 7)), "", f"{len(results) - reused} measured, {reused} fresh already", verdict]
    )


def _row(result: Result) -> list[str]:
    record, predicted = result.record, result.predicted
    cells = [result.run.name, gib(predicted.ledger.peak)]
    complete = bool(record.ledger.entries) and result.record.outcome == "ok"
    if complete:
        error = 100 * (predicted.ledger.peak - record.ledger.peak) / record.ledger.peak
        cells += [gib(record.ledger.peak), f"{error:+.2f}"]
    else:
        cells += ["", ""]
    on_card = complete and record.reserved and predicted.reserved
    cells += [gib(max(predicted.reserved.values())), gib(max(record.reserved.values()))] if on_card else ["", ""]
    outcome = record.outcome.value + ("" if result.as_expected else f" (expected {result.run.expected.value})")
    return [*cells, f"{record.timings.get('step_ms', 0):.1f}" if record.timings else "", outcome]
