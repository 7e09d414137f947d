"""What watched code took, as text: for the report of a failed test. Pure: a value in, a string out."""

from collections.abc import Iterator

from vramplan.ledger import Component
from vramplan.measure.usage import Usage
from vramplan.report.layout import amount, table
from vramplan.report.timeline_samples import Tensors, sample
from vramplan.units import GIB, KIB, MIB, human

_SHOWN = 8  # tensors


def render_usage(usage: Usage) -> str:
    """One sentence, the ledger where there is one, the largest tensors at the peak (on cuda: at the end)."""
    parts = [usage_sentence(usage)]
    if usage.ledger.entries:
        parts.append("\n".join(_ledger(usage)))
    tensors = tuple(t for t in largest(usage)[:_SHOWN] if t.bytes * 1000 >= usage.peak)
    if tensors:
        where = "at the end" if usage.device == "cuda" else "at the peak"
        parts.append("\n".join([f"largest tensors {where}:", *_tensors(tensors)]))
    return "\n\n".join(parts)


def usage_sentence(usage: Usage) -> str:
    """`12.50 MiB at the peak, in backward; 3.00 MiB before, 3.25 MiB after; cpu`."""
    where = f", in {usage.ledger.peak_phase.value}" if usage.ledger.entries else ""
    reserved = f", {human(usage.reserved)} reserved" if usage.reserved else ""
    ends = f"{human(usage.before)} before, {human(usage.after)} after"
    return f"{human(usage.peak)} at the peak{where}{reserved}; {ends}; {usage.device}"


def largest(usage: Usage) -> tuple[Tensors, ...]:
    """The tensors at the peak, those of all layers together, the most bytes first; weights and states stand apart."""
    return sample(usage.timeline).tensors


def _ledger(usage: Usage) -> list[str]:
    ledger = usage.ledger
    unit, factor = _unit(usage.peak)
    rows = [[unit, *(phase.value for phase in ledger.phases)]]
    for component in Component:
        held = [ledger.bytes(phase, component) for phase in ledger.phases]
        if any(held):
            rows.append([component.value, *(amount(size, factor) for size in held)])
    return table([*rows, ["allocated", *(f"{ledger.allocated(phase) / factor:.2f}" for phase in ledger.phases)]])


def _tensors(tensors: tuple[Tensors, ...]) -> Iterator[str]:
    unit, factor = _unit(tensors[0].bytes)
    rows = [[f"  {t.bytes / factor:.2f} {unit}", t.component.value, t.words] for t in tensors]
    yield from table(rows, left=(1, 2))


def _unit(size: int) -> tuple[str, int]:
    """Tests are small: KiB where the tables of runs would say 0.00 MiB."""
    return next(((unit, factor) for unit, factor in (("GiB", GIB), ("MiB", MIB)) if size >= factor), ("KiB", KIB))
