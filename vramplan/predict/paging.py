"""Paged optimizers: which states may leave the card, which never do, and what a full card does to them.

bitsandbytes 0.50.2 optim/optimizer.py `get_state_buffer` takes managed memory (`cudaMallocManaged`) for the states of
tensors with at least 100,000 elements; block constants, smaller tensors' states and everything that is no optimizer
state stay in the allocator's own memory, which the driver cannot move.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vramplan.ledger import Phase
from vramplan.optimizers import optimizer
from vramplan.predict.adapters import Trainable, stepped
from vramplan.predict.optimizer import MIN_PAGED_SIZE, eight_bit, shared_states, states
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.units import human


@dataclass(frozen=True, slots=True)
class TensorStates:
    """The optimizer states of trained tensors of one name and shape, all of them together."""

    label: str
    shape: tuple[int, ...]
    count: int
    """How many such tensors the model has."""
    numel: int
    """Elements of one."""
    eight_bit: bool
    """Whether its states have 8 bits."""
    managed: int
    """Bytes in managed memory: they may leave the card."""
    on_card: int
    """Bytes in the allocator's memory: they never do."""

    @property
    def paged(self) -> bool:
        """Whether any of its states may leave the card."""
        return self.managed > 0


@dataclass(frozen=True)
class Paging:
    """The optimizer states of a run by where they are."""

    optimizer: str
    paged_optimizer: bool
    """Whether the optimizer pages at all."""
    tensors: tuple[TensorStates, ...]
    shared: int
    """Bytes of what the optimizer keeps once: its quantisation maps, on the card."""

    @property
    def managed(self) -> int:
        """Bytes that may leave the card; as much main memory takes them when all of them must."""
        return sum(tensor.managed for tensor in self.tensors)

    @property
    def on_card(self) -> int:
        """Bytes of states that stay on the card whatever happens."""
        return self.shared + sum(tensor.on_card for tensor in self.tensors)


def paging(scenario: Scenario, device: Device = "cuda") -> Paging:
    """Where on the device the scenario's optimizer states are; empty for a run that trains nothing."""
    trained, trainer = stepped(scenario), scenario.stack.trainer
    counts: dict[tuple[str, tuple[int, ...]], int] = {}
    first: dict[tuple[str, tuple[int, ...]], Trainable] = {}
    for tensor in trained:
        key = (tensor.label, tensor.shape)
        counts[key] = counts.get(key, 0) + tensor.times
        first.setdefault(key, tensor)
    rows = tuple(
        _row(scenario.optimizer, tensor, counts[key], device, trainer=trainer) for key, tensor in first.items()
    )
    shared = shared_states(scenario.optimizer, trained, device, trainer=trainer) if trained else ()
    return Paging(scenario.optimizer, optimizer(scenario.optimizer).paged, rows, sum(state.bytes for state in shared))


def _row(name: str, tensor: Trainable, count: int, device: Device, *, trainer: bool) -> TensorStates:
    made = states(name, tensor, device, trainer=trainer)
    return TensorStates(
        label=tensor.label,
        shape=tensor.shape,
        count=count,
        numel=tensor.numel,
        eight_bit=eight_bit(optimizer(name), tensor, trainer=trainer),
        managed=count * sum(state.bytes for state in made if state.managed),
        on_card=count * sum(state.bytes for state in made if not state.managed),
    )


@dataclass(frozen=True, slots=True)
class Pressure:
    """One phase of a step on a card of a given size, from the second step on."""

    phase: Phase
    fixed: int
    """Bytes that cannot be moved: the allocator's segments so far, and the context."""
    stays: int
    """Bytes of managed states for which there is room beside them."""
    evicted: int
    """Bytes of managed states that are in main memory."""
    missing: int
    """Bytes by which what cannot be moved is more than the budget: above 0, the run is out of memory, paged or not."""


@dataclass(frozen=True)
class FullCard:
    """What a card of `budget` bytes does to a run's paged states."""

    budget: int
    managed: int
    phases: tuple[Pressure, ...]

    @property
    def worst(self) -> Pressure:
        """The phase with the least room."""
        return max(self.phases, key=lambda phase: phase.fixed)

    @property
    def fits(self) -> bool:
        """Whether the run completes, states moved out where they must be."""
        return not self.worst.missing

    @property
    def needs_paging(self) -> bool:
        """Whether it completes only because states are moved out."""
        return self.fits and self.worst.evicted > 0

    @property
    def moved_per_step(self) -> int:
        """Bytes that each optimizer step brings in, and as many that it sends out.

        A step touches every state once, in the same order each time; under least-recently-used eviction a cycle that
        is longer than the room misses at every touch, so it is all or nothing.
        """
        return self.managed if self.fits and self.worst.evicted else 0


def full_card(reserved: Mapping[Phase, int], context: int, managed: int, budget: int) -> FullCard:
    """The pressure on paged states, phase by phase.

    `reserved` is the allocator's running high-water mark by phase (uncapped: while the driver can evict managed pages,
    `cudaMalloc` succeeds and PyTorch has no reason to give segments back). Segments are kept, so from the second step
    on every phase has the whole run's mark; `load` is the time before.
    """
    steady = max(reserved.values(), default=0)
    phases = []
    for phase, mark in reserved.items():
        before = phase is Phase.LOAD
        fixed = (mark if before else steady) + context
        room = max(budget - fixed, 0)
        here = 0 if before else managed
        stays = min(here, room)
        phases.append(Pressure(phase, fixed, stays, here - stays, max(fixed - budget, 0)))
    return FullCard(budget, managed, tuple(phases))


def paging_sentences(found: Paging) -> tuple[str, ...]:
    """What is paged and what never is, in words; empty for an optimizer that pages nothing by design."""
    if not found.paged_optimizer or not found.tensors:
        return ()
    paged = [tensor for tensor in found.tensors if tensor.paged]
    never = [tensor for tensor in found.tensors if not tensor.paged]
    rule = f"bitsandbytes pages the states of tensors with at least {MIN_PAGED_SIZE:,} elements"
    total = sum(tensor.count for tensor in found.tensors)
    count = sum(tensor.count for tensor in paged)
    room = ", for which main memory must have room" if found.managed else ""
    first = f"{rule}: {count:,} of {total:,} tensors, {human(found.managed)} in managed memory{room}"
    stays = found.on_card
    second = f"{human(stays)} of states never leave the card" if stays else "every state may leave the card"
    if never:
        smallest = max(never, key=lambda tensor: tensor.numel)
        second += f" (the largest tensor that is not paged, {smallest.label}, has {smallest.numel:,} elements)"
    return (first, second)
