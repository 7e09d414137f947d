"""Predictions and records as text for a terminal or a pipe. Pure: a value in, a string out; verdict last."""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from vramplan.ledger import Component
from vramplan.predict.levers import Lever
from vramplan.predict.merge import saved_bytes
from vramplan.predict.quantization import bits, quantized_parameters
from vramplan.record import Outcome, Prediction, Record, Result
from vramplan.report.layout import SMALLEST_BAR, Page, amount, bar, bar_room, table, table_unit
from vramplan.report.report_words import basis_words
from vramplan.report.stack_words import batch_words, method_words, stack_words
from vramplan.report.verdict_text import verdict_lines
from vramplan.scenario import Checkpointing, Method, Scenario
from vramplan.units import human


def render_prediction(
    prediction: Prediction, page: Page, *, levers: Sequence[Lever] = (), before_verdict: Sequence[str] = ()
) -> str:
    """One prediction in full; lines of others' may stand before the verdict."""
    lines = [*_header(prediction, page), *_double_line(prediction.scenario, page), ""]
    lines += [*render_ledger(prediction, page), "", *_peak_lines(prediction, page), *_managed_lines(prediction, page)]
    lines += [*_basis_lines(prediction, page), *_warnings(prediction, page)]
    if levers:
        unit, factor = table_unit(prediction.ledger.peak)
        rows = [[f"  -{lever.saves / factor:.2f} {unit}", lever.label] for lever in levers]
        lines += ["", "what would save most:", *table(rows, left=(1,))]
    if before_verdict:
        lines += ["", *before_verdict]
    return "\n".join([*lines, "", *verdict_lines(prediction, page)])


def render_record(record: Record, page: Page) -> str:
    """One measured run in full; how it ended is the last line."""
    lines = list(_header(record, page))
    if record.ledger.entries:
        lines += ["", *render_ledger(record, page), "", *_peak_lines(record, page)]
    lines += _warnings(record, page)
    lines += [text for line in _times(record) for text in page.wrap(line, indent="  ")]
    return "\n".join([*lines, "", *_outcome(record, page)])


def render_ledger(result: Result, page: Page) -> list[str]:
    """Components down, phases across, each component's share of the peak as a bar; the peak is bold."""
    ledger = result.ledger
    unit, factor = table_unit(ledger.peak)
    rows = [[unit, *(phase.value for phase in ledger.phases), "of peak"]]
    bars = [0.0]
    for component in Component:
        held = [ledger.bytes(phase, component) for phase in ledger.phases]
        if component is Component.CONTEXT or not any(held):
            continue
        bars.append(ledger.bytes(ledger.peak_phase, component) / ledger.peak)
        rows.append([component.value, *(amount(size, factor) for size in held), _share(bars[-1])])
    totals = [f"{ledger.allocated(phase) / factor:.2f}" for phase in ledger.phases]
    where = ledger.phases.index(ledger.peak_phase)
    totals[where] = page.bold(totals[where])
    rows.append([page.bold("allocated"), *totals, ""])
    rows += _device_rows(result, factor)
    return _with_bars(rows, bars, page)


def _device_rows(result: Result, factor: int) -> Iterator[list[str]]:
    """What the allocator reserves in each phase, and what the process holds on the card with its context."""
    if not result.reserved:
        return
    reserved = [result.reserved.get(phase, 0) for phase in result.ledger.phases]
    yield ["reserved", *(f"{size / factor:.2f}" for size in reserved), ""]
    if result.context:
        yield ["device", *(f"{(size + result.context) / factor:.2f}" for size in reserved), ""]


def _with_bars(rows: list[list[str]], shares: list[float], page: Page) -> list[str]:
    """The table with bars as wide as the page leaves room for; without room, no bars, then no shares."""
    plain = table(rows)
    room = bar_room(plain, page)
    if room < 0:
        return table([row[:-1] for row in rows])
    if room < SMALLEST_BAR:
        return plain
    highest = max(shares, default=0.0) or 1.0
    drawn = [bar(share / highest, room) for share in shares]
    drawn += [""] * (len(rows) - len(drawn))
    pictured = [[*row, picture] for row, picture in zip(rows, drawn, strict=True)]
    return table(pictured, left=(0, len(rows[0])))


def _share(share: float) -> str:
    """A percentage; `<1%` for something that is there."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}" if share else ""


def _header(result: Result, page: Page) -> Iterator[str]:
    scenario, count = result.scenario, result.parameters
    yield from page.wrap(f"{page.bold(_title(scenario))}: {', '.join(method_words(scenario))}", indent="  ")
    yield from page.wrap(", ".join(_run(scenario, result.attention)), indent="  ")
    counts = f"{_millions(count.total)} parameters"
    if count.quantized:
        counts += f", {_millions(count.quantized)} quantised at {result.bits_per_parameter:.3f} bits"
    if count.trainable:
        counts += f", {_millions(count.trainable)} trained"
    yield from page.wrap(counts, indent="  ")


def _title(scenario: Scenario) -> str:
    """The model's name, after the scenario's own where it was given one."""
    model = scenario.model.name
    return model if scenario.name == f"{model}-{scenario.method.value}" else f"{scenario.name} ({model})"


def _run(scenario: Scenario, kernels: Sequence[str]) -> Iterator[str]:
    if scenario.method is Method.MERGE:
        yield from _merge(scenario)
        return
    micro = f" x {scenario.grad_accum} micro-batches" if scenario.grad_accum > 1 else ""
    yield f"batch {batch_words(scenario)} x {scenario.seq} tokens{micro}{', padded' if scenario.padding else ''}"
    yield scenario.compute_dtype.value
    taken = " and ".join(dict.fromkeys(kernels))
    yield f"{scenario.attention} ({taken} kernel)" if taken and ":" not in scenario.attention else scenario.attention
    if scenario.method.trains:
        kinds = {Checkpointing.OFF: "no checkpointing", Checkpointing.REENTRANT: "reentrant checkpointing"}
        yield kinds.get(scenario.checkpointing, "checkpointing")
        yield f"stack {stack_words(scenario)}"
    if scenario.method is Method.INFERENCE:
        yield f"{scenario.new_tokens} new tokens"
    if scenario.evaluation is not None:
        steps = scenario.evaluation.accumulate
        gathered = f"logits of {steps} steps gathered" if steps else "loss alone"
        yield f"evaluation with batch {batch_words(scenario, scenario.evaluation.batch)} ({gathered})"
    if scenario.gpu:
        yield scenario.gpu
        yield f"torch {scenario.torch}"
    if scenario.expandable_segments:
        yield "expandable segments"


def _merge(scenario: Scenario) -> Iterator[str]:
    yield f"base in {scenario.dtype.value}"
    if scenario.merge.dequantize:
        yield "dequantised before the adapters are attached"
    if scenario.merge.safe:
        yield "safe_merge"
    yield f"{human(saved_bytes(scenario))} saved in files of at most {scenario.merge.max_shard_size}"
    if scenario.gpu:
        yield scenario.gpu


def _millions(count: int) -> str:
    """`6.74 B`, `40.0 M`, `512`: parameters as people name model sizes, three digits."""
    for factor, letter in ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " k")):
        if count >= factor:
            return f"{count / factor:#.3g}".rstrip(".") + letter
    return str(count)


def _double_line(scenario: Scenario, page: Page) -> list[str]:
    """What the flag saves, as a line of its own: block constants with and without their own quantisation."""
    quant, architecture = scenario.quant, scenario.architecture
    if not quant.type.four_bit:
        return []
    single, double = (bits(architecture, replace(quant, double=flag)) for flag in (False, True))
    saved = sum(single) - sum(double)
    saves = human(round(saved * quantized_parameters(architecture, quant) / 8))
    text = f"double quantisation {'saves' if quant.double else 'would save'} {saves}: {double.per_parameter:.3f}"
    overhead = f"constants {double.constants:.3f} instead of {single.constants:.3f}"
    return page.wrap(f"{text} bits per parameter instead of {single.per_parameter:.3f} ({overhead})", indent="  ")


def _peak_lines(result: Result, page: Page) -> list[str]:
    ledger = result.ledger
    parts = [f"peak {page.bold(human(ledger.peak))} allocated in {ledger.peak_phase.value}"]
    if result.reserved:
        parts.append(f"{human(result.peak_reserved)} reserved")
        if result.context:
            parts.append(f"{human(result.peak_on_device)} on the card")
    if result.scenario.method.trains:
        parts.append(f"{human(ledger.steady)} between steps")
    return page.wrap(", ".join(parts), indent="  ")


def _managed_lines(prediction: Prediction, page: Page) -> list[str]:
    """Optimizer states in no line of the table, and how much of them the card has no room for beside the rest."""
    if not prediction.managed:
        return []
    text = f"+ {human(prediction.managed)} of paged states in managed memory (main memory when the card is full)"
    verdict = prediction.verdict
    if verdict is not None and verdict.fits and prediction.managed > verdict.margin:
        text += f"; {human(prediction.managed - verdict.margin)} of it has no room on the card: every step moves pages"
    return page.wrap(text, indent="  ")


def _basis_lines(result: Result, page: Page) -> list[str]:
    """How each component at the peak is known."""
    return page.wrap(basis_words(result.ledger.of(result.ledger.peak_phase)), indent="  ")


def _warnings(result: Result, page: Page) -> list[str]:
    return [line for text in result.warnings for line in page.wrap(f"warning: {text}", indent="  ")]


def _times(record: Record) -> Iterator[str]:
    """How long the steps took and how the loss went, where the record has it."""
    times = record.timings
    if "step_ms" in times:
        parts = [f"step {times['step_ms']:,.0f} ms"]
        if "step_ms_min" in times and "step_ms_max" in times:
            parts[0] += f" (median; {times['step_ms_min']:,.0f} to {times['step_ms_max']:,.0f})"
        if "tokens_per_second" in times:
            parts.append(f"{times['tokens_per_second']:,.0f} tokens per second")
        yield ", ".join(parts)
    losses = times.get("losses", ())
    if len(losses) > 1:
        yield f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} steps"


def _outcome(record: Record, page: Page) -> list[str]:
    if record.outcome is Outcome.OK:
        ledger = record.ledger
        peak = f"peak of {human(ledger.peak)} in {ledger.peak_phase.value}, measured on {record.device}"
        return [f"{page.green(record.outcome.value)}: {peak}"]
    note = f": {record.note}" if record.note else ""
    return page.wrap(f"{page.red(record.outcome.value)}{note}", indent="  ")
