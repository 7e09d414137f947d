"""Every number of a prediction taken apart: the tensors that are alive at the peak, with the arithmetic of each."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vramplan.allocator.rules import MIN_BLOCK, block_size
from vramplan.api import Foreseen
from vramplan.element_types import ELEMENT_BYTES
from vramplan.ledger import Basis, Component, Ledger, Phase
from vramplan.predict.formulas import Formula, Key, dimensions, formulas
from vramplan.predict.paging import paging, paging_sentences
from vramplan.predict.quantization import bits_sentence
from vramplan.record import Prediction
from vramplan.timeline import Alloc, Enter, Free, Timeline

_OUTSIDE = (Component.ALLOCATOR, Component.CONTEXT)
#: The two spellings of a label that ends in shape and dtype: the closed form's and the trace's.
_TYPED = re.compile(r"(?P<what>.+) (?P<dtype>[a-z]+\d*) \[(?P<shape>[\d, ]*)\]")
_TRACED = re.compile(r"(?P<op>\S+) \[(?P<shape>[\d, ]*)\] (?P<dtype>[a-z]+\d*)(?P<where>.*)")
_LAYER = re.compile(r"\.\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Line:
    """Tensors of one kind and size."""

    what: str
    count: int
    each: int
    """Bytes of one of them."""
    formula: str
    """Arithmetic whose value is `each`; empty when only the size is known."""
    note: str = ""

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return self.count * self.each


@dataclass(frozen=True)
class Explanation:
    """One component at the peak; its lines add up to its bytes."""

    component: Component
    phase: Phase
    bytes: int
    basis: Basis
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The element of the `explain` array."""
        lines = [
            {"what": x.what, "count": x.count, "each": x.each, "bytes": x.bytes, "formula": x.formula, "note": x.note}
            for x in self.lines
        ]
        return {
            "component": self.component.value,
            "phase": self.phase.value,
            "bytes": self.bytes,
            "basis": self.basis.value,
            "lines": lines,
            "notes": list(self.notes),
        }


def explain(foreseen: Foreseen) -> tuple[Explanation, ...]:
    """Each component of the peak phase, in the order of the table, line by line."""
    prediction, timeline = foreseen
    ledger, phase = prediction.ledger, prediction.ledger.peak_phase
    alive = live_at(timeline, phase, ledger)
    known = formulas(prediction.scenario, prediction.device) if prediction.engine == "analytic" else {}
    explanations = []
    for entry in ledger.of(phase):
        if entry.component is Component.CONTEXT:
            lines: tuple[Line, ...] = (Line(prediction.scenario.gpu, 1, entry.bytes, "", entry.note),)
        elif entry.component is Component.ALLOCATOR:
            lines = _allocator_lines(alive, ledger.allocated(phase))
        else:
            lines = _lines((block for block in alive if block.component is entry.component), known)
        assert sum(line.bytes for line in lines) == entry.bytes, entry
        notes = _notes(entry.component, prediction, entry.note)
        explanations.append(Explanation(entry.component, phase, entry.bytes, entry.basis, lines, notes))
    return tuple(explanations)


def live_at(timeline: Timeline, phase: Phase, ledger: Ledger) -> list[Alloc]:
    """What is alive when `phase` is at the high-water mark that `ledger` tells of."""
    wanted = {e.component: e.bytes for e in ledger.of(phase) if e.component not in _OUTSIDE}
    held: Counter[Component] = Counter()
    live: dict[int, Alloc] = {}
    current, total, goal = Phase.LOAD, 0, sum(wanted.values())
    for event in timeline.events():
        if isinstance(event, Enter):
            current = event.phase
        elif isinstance(event, Alloc):
            live[event.block] = event
            held[event.component] += event.bytes
            total += event.bytes
        elif isinstance(event, Free):
            gone = live.pop(event.block)
            held[gone.component] -= gone.bytes
            total -= gone.bytes
        if current is phase and total == goal and {c: size for c, size in held.items() if size} == wanted:
            return list(live.values())
    raise AssertionError(f"the timeline never holds what the ledger says of {phase}")


def _lines(blocks: Iterable[Alloc], known: Mapping[Key, Formula]) -> tuple[Line, ...]:
    """Blocks that the same arithmetic explains on one line; the most bytes first."""
    owners: dict[tuple[str, str, str, int], Counter[str]] = {}
    for block in blocks:
        formula = known.get((block.component, block.label, block.bytes)) or _from_label(block)
        key = (formula.what, formula.text, formula.note, block.bytes)
        owners.setdefault(key, Counter())[formula.owner] += 1
    lines = (
        Line(_named(what, names), names.total(), each, text, note) for (what, text, note, each), names in owners.items()
    )
    return tuple(sorted(lines, key=lambda line: -line.bytes))


def _named(what: str, owners: Iterable[str]) -> str:
    names = ", ".join(name for name in owners if name)
    return f"{names}: {what}" if names else what


def _from_label(block: Alloc) -> Formula:
    """What a label tells that ends in dtype and shape; the bare size for one that doesn't."""
    label = _LAYER.sub(".*", block.label)
    typed, traced = _TYPED.fullmatch(label), _TRACED.fullmatch(label)
    match = typed or traced
    if match is None:
        return Formula(label, "", "")
    what = match["what"] if typed else match["op"] + match["where"]
    shape = tuple(map(int, filter(None, match["shape"].split(", "))))
    element = ELEMENT_BYTES.get(match["dtype"], 0)
    text = f"{dimensions(shape)} x {element}"
    size = element
    for extent in shape:
        size *= extent
    return Formula(what, "", text if size == block.bytes else "", match["dtype"])


def _allocator_lines(alive: list[Alloc], allocated: int) -> tuple[Line, ...]:
    raw = sum(block.bytes for block in alive)
    rounded = sum(block_size(block.bytes) for block in alive)
    rounding = Line(f"{len(alive)} blocks rounded up to {MIN_BLOCK} B", 1, rounded - raw, f"{rounded} - {raw}")
    unsplit = Line(
        "blocks handed out whole, their remainder too small to be a block",
        1,
        allocated - rounded,
        f"{allocated} - {rounded}",
        "from the replay of the caching allocator",
    )
    return tuple(line for line in (rounding, unsplit) if line.bytes)


def _notes(component: Component, prediction: Prediction, note: str) -> tuple[str, ...]:
    scenario = prediction.scenario
    found = []
    if component is Component.WEIGHTS and prediction.parameters.quantized:
        found.append(f"{prediction.parameters.quantized:,} of {prediction.parameters.total:,} parameters are quantised")
    if component is Component.QUANT_STATE and scenario.quant.type.four_bit:
        found.append(bits_sentence(scenario.quant, digits=3))
    if component is Component.OPTIMIZER:
        found.append(f"{scenario.optimizer} over {prediction.parameters.trainable:,} trained parameters")
        if prediction.device == "cuda":
            found += paging_sentences(paging(scenario))
    if component is not Component.CONTEXT and note:
        found.append(note)
    return tuple(found)
