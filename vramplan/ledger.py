"""The ledger: how many bytes each component holds at each phase's high-water mark, and how we know."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import product

from vramplan.errors import unknown


class Phase(StrEnum):
    """A stretch of a run; its value is the high-water mark reached inside it."""

    LOAD = "load"  # build, quantise, prepare, attach adapters, create the optimizer
    FORWARD = "forward"  # up to the input of the output head
    LOSS = "loss"  # output head and loss
    BACKWARD = "backward"
    STEP = "step"  # clip, optimizer, zero_grad
    EVALUATION = "evaluation"  # the forward passes of an evaluation inside training, with what it gathers
    PREFILL = "prefill"
    DECODE = "decode"
    MERGE = "merge"
    SAVE = "save"


class Component(StrEnum):
    """What a byte is for. All but `ALLOCATOR` and `CONTEXT` are raw tensor bytes."""

    WEIGHTS = "weights"  # linear layers of the base model, packed or 16-bit
    QUANT_STATE = "quant-state"  # block constants, their own constants, code tables
    UNQUANTIZED = "unquantized"  # the rest of the base model: embeddings, head, norms, biases, skipped modules, buffers
    ADAPTERS = "adapters"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"  # kept for backward
    LOGITS = "logits"  # logits, their fp32 copies and gradients
    WORKSPACE = "workspace"  # temporaries: dequantised weights, recomputed layer, library workspaces
    CACHE = "cache"  # keys and values, inference
    ALLOCATOR = "allocator"  # 512-byte rounding and unsplit remainders
    CONTEXT = "context"  # on the device, outside the allocator
    UNKNOWN = "unknown"  # measured, explained by nobody; never predicted


#: Where each stands in a list of bytes by component.
COMPONENT_INDEX: Mapping[Component, int] = {component: i for i, component in enumerate(Component)}
#: Held from step to step: the same bytes at every moment after the first step.
RESIDENT_COMPONENTS = (
    Component.WEIGHTS,
    Component.QUANT_STATE,
    Component.UNQUANTIZED,
    Component.ADAPTERS,
    Component.OPTIMIZER,
)
#: Their bytes follow from shapes and dtypes alone.
STATIC_COMPONENTS = (*RESIDENT_COMPONENTS, Component.GRADIENTS)


class Basis(StrEnum):
    """How a number is known."""

    EXACT = "exact"  # shapes x dtypes, must match to the byte
    MODELLED = "modelled"  # follows from how autograd and the libraries work
    TRACED = "traced"  # the real libraries on fake tensors
    CALIBRATED = "calibrated"  # came from a recorded run, named in the note
    MEASURED = "measured"


@dataclass(frozen=True, slots=True)
class Entry:
    """`bytes` of `component` at the high-water mark of `phase`."""

    phase: Phase
    component: Component
    bytes: int
    basis: Basis
    note: str = ""


@dataclass(frozen=True)
class Ledger:
    """Entries of every phase, and what stays allocated between steps.

    The entries of a phase, `CONTEXT` aside, add up to that phase's allocated bytes. Phases and components are asked for
    by their enum or its word, `bytes("backward", "logits")`; an unknown word is a UsageError.
    """

    entries: tuple[Entry, ...]
    steady: int

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that have entries, in the order of the run."""
        present = {entry.phase for entry in self.entries}
        return tuple(phase for phase in Phase if phase in present)

    def of(self, phase: Phase | str) -> tuple[Entry, ...]:
        """The entries of one phase."""
        wanted = _phase(phase)
        return tuple(entry for entry in self.entries if entry.phase is wanted)

    def bytes(self, phase: Phase | str, component: Component | str) -> int:
        """Bytes of one component at one phase's high-water mark; 0 when it holds nothing there."""
        wanted = _component(component)
        return sum(entry.bytes for entry in self.of(phase) if entry.component is wanted)

    def allocated(self, phase: Phase | str) -> int:
        """Bytes allocated at the high-water mark of `phase` (the context stands outside the allocator)."""
        return sum(entry.bytes for entry in self.of(phase) if entry.component is not Component.CONTEXT)

    @cached_property
    def peak_phase(self) -> Phase:
        """The phase with the highest high-water mark, the earliest one if several share it."""
        return max(self.phases, key=self.allocated)

    @cached_property
    def peak(self) -> int:
        """Bytes allocated at the highest high-water mark of the run."""
        return self.allocated(self.peak_phase)


def _phase(word: Phase | str) -> Phase:
    """The phase that is called so; a word that is none must not read as 0 bytes."""
    try:
        return Phase(word)
    except ValueError as error:
        raise unknown("phase", str(word), Phase) from error


def _component(word: Component | str) -> Component:
    """The component, likewise."""
    try:
        return Component(word)
    except ValueError as error:
        raise unknown("component", str(word), Component) from error


def merge_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """One entry per phase and component, in the order of the enums; bytes added, the first note kept."""
    merged: dict[tuple[Phase, Component], Entry] = {}
    for entry in entries:
        key = (entry.phase, entry.component)
        old = merged.get(key)
        merged[key] = entry if old is None else Entry(*key, old.bytes + entry.bytes, old.basis, old.note or entry.note)
    return tuple(merged[key] for key in product(Phase, Component) if key in merged)
