"""The public JSON of a data set's outlook: the key `dataset` of a prediction or a plan."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from vramplan.dataset.histogram import histogram
from vramplan.dataset.lengths import Cut, Lengths
from vramplan.dataset.outlook import Cell, Outlook, Risk, Room, Sampler
from vramplan.plan.frontier import Row

PERCENTS = (Fraction(1), Fraction(25), Fraction(50), Fraction(75), Fraction(90), Fraction(99), Fraction("99.9"))


def outlook_json(outlook: Outlook, frontier: Sequence[Row] = ()) -> dict[str, Any]:
    """The object; with the rows of a plan's frontier also what each would cut."""
    feed, lengths, batches = outlook.feed, outlook.survey.lengths, outlook.batches
    packed = feed.sampler is Sampler.PACKED
    body: dict[str, Any] = {
        "source": outlook.survey.name,
        "skipped": outlook.survey.skipped,
        **_lengths_json(lengths),
        "histogram": [{"from": bin_.low, "to": bin_.high, "samples": bin_.samples} for bin_ in histogram(lengths)],
        "max_length": outlook.scenario.seq,
        "beyond_max_length": _cut_json(lengths.cut(outlook.scenario.seq)),
        "sampler": feed.sampler.value,
        "packing": feed.packing.value if packed else None,
        "packed": _lengths_json(outlook.rows) if packed else None,
        "pad_to_multiple_of": feed.multiple,
        "batch": outlook.longest.batch,
        "micro_batches": batches.count,
        "padding": round(outlook.padding, 6),
        "batch_percentiles": {_percent(percent): outlook.batch_percentile(percent) for percent in PERCENTS},
        "batch_lengths": [{"seq": seq, "share_up_to": round(share, 9)} for seq, share in outlook.distribution],
        "batches": [_cell_json(cell) for cell in outlook.cells],
        "notes": list(outlook.notes),
        "room": _room_json(outlook.room) if outlook.room else None,
    }
    if frontier:
        body["frontier"] = [
            {"batch": row.scenario.batch, "seq": row.scenario.seq, **_cut_json(lengths.cut(row.scenario.seq))}
            for row in frontier
        ]
    return body


def _lengths_json(lengths: Lengths) -> dict[str, Any]:
    return {
        "samples": lengths.samples,
        "tokens": lengths.tokens,
        "shortest": lengths.shortest,
        "longest": lengths.longest,
        "mean": round(lengths.tokens / lengths.samples, 3),
        "percentiles": {_percent(percent): lengths.percentile(percent) for percent in PERCENTS},
    }


def _percent(percent: Fraction) -> str:
    return f"{float(percent):g}"


def _cut_json(cut: Cut) -> dict[str, int]:
    return {"samples": cut.samples, "tokens_truncated": cut.truncated, "tokens_dropped": cut.dropped}


def _cell_json(cell: Cell) -> dict[str, Any]:
    prediction = cell.prediction
    body: dict[str, Any] = {"name": cell.name, "seq": cell.seq, "phase": prediction.ledger.peak_phase.value}
    body["allocated"] = prediction.ledger.peak
    if prediction.reserved:
        body |= {"reserved": prediction.peak_reserved, "device": prediction.peak_on_device}
    if prediction.verdict:
        body["verdict"] = prediction.verdict.word.value
    return body


def _room_json(room: Room) -> dict[str, Any]:
    return {
        "limit": room.limit,
        "cut": _cut_json(room.cut),
        "fits": room.risk is None,
        "risk": _risk_json(room.risk) if room.risk else None,
    }


def _risk_json(risk: Risk) -> dict[str, Any]:
    return {
        "fitting_up_to": risk.fitting,
        "share_of_micro_batches": risk.share,
        "micro_batches_per_epoch": risk.expected,
        "micro_batches_until_out_of_memory": risk.until,
        "chances": [{"micro_batches": number, "probability": chance} for number, chance in risk.chances],
    }
