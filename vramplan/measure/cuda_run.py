"""A scenario measured on a GPU, in one process: a clean pass for the figures, an attributed one for the names.

Load (tracked) -> warm-up step -> clean step -> timed bare steps -> the same step under the tracker. Memory comes from
the clean step, where nothing but the allocator's own counters is read; the tracker says what it consisted of. A merge
has no warm-up: nobody merges twice in a process.
"""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vramplan.allocator_settings import settings
from vramplan.errors import first_line
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase, merge_entries
from vramplan.measure.cuda import CudaMeter, PhasePeak, Several, allocator_facts
from vramplan.measure.cuda_history import check_replay
from vramplan.measure.cuda_machine import Machine
from vramplan.measure.cuda_tracker import CudaTracker
from vramplan.measure.environment import library_versions
from vramplan.measure.nvml import Held
from vramplan.measure.run import Progress
from vramplan.measure.timings import make_bare, note_loss, timings
from vramplan.predict.replayable import allocator_rules
from vramplan.record import Outcome, Parameters, Record
from vramplan.scenario import Method, Scenario
from vramplan.training.build import logits_width, random_weights_warning
from vramplan.training.counting import bits_per_parameter, count_parameters
from vramplan.training.loop import TrainingLoop, loop_facts
from vramplan.training.merge import saved_files
from vramplan.training.run import Workload, set_up

#: The phase that a run which was loaded begins with; a merge begins with dropping what the one before made.
_FIRST_PHASE = {Method.INFERENCE: Phase.PREFILL, Method.MERGE: Phase.SAVE}
_MEASURED: Mapping[Component, Basis] = dict.fromkeys(Component, Basis.MEASURED)


@dataclass
class Findings:
    """What is known so far; a run that ends early leaves the rest as it is."""

    parameters: Parameters
    bits: float = 0.0
    steady: int = 0
    context: Held | None = None
    reserved_at_context: int = 0
    named: Ledger = field(default_factory=lambda: Ledger((), 0))
    workspaces: int = 0
    timings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class CudaRun:
    """One measurement: `record` runs it to its end, also to a bad one."""

    def __init__(self, scenario: Scenario, steps: int, machine: Machine, progress: Progress) -> None:
        self._scenario = scenario
        self._steps = steps
        self._machine = machine
        self._say = progress
        self._meter = CudaMeter(machine.allocator)
        self._tracker: CudaTracker = machine.tracker(logits_width(scenario))
        self._losses: list[float] = []
        parameters = Parameters(scenario.architecture.numel, 0, 0)
        self._found = Findings(parameters, warnings=random_weights_warning(scenario))

    def record(self) -> Record:
        """The record; out of memory before the figures were complete is its outcome, with the ledger so far."""
        with self._tracker.listening():
            try:
                workload = self._load()
                self._clean(workload)
            except torch.OutOfMemoryError as error:
                self._meter.close()
                self._look()
                self._found.named = self._so_far()
                return self._written(Outcome.OOM, first_line(error))
            with self._tolerated("timing"):
                self._timed(workload)
            with self._tolerated("the attributed pass"):
                self._attributed(workload)
        return self._written(Outcome.OK, "")

    def _load(self) -> Workload:
        self._say("building the model")
        self._machine.start_history()
        with self._tracker:
            meter = Several(self._meter, self._tracker)
            workload = set_up(self._scenario, self._machine.device, meter, real_trainer=True)
        self._found.facts |= loop_facts(workload)
        self._found.parameters = count_parameters(workload.model)
        self._found.bits = bits_per_parameter(workload.model)
        return workload

    def _clean(self, workload: Workload) -> None:
        """The step that counts, after one that makes what only a first step makes."""
        workload.meter = self._meter
        if self._scenario.method is not Method.MERGE:
            self._say("warming up")
            note_loss(workload.run(), self._losses)
            gc.collect()
            self._meter.forget_steps()
        self._say("measuring")
        note_loss(workload.run(), self._losses)
        self._found.steady = self._meter.close().allocated
        self._look()
        self._found.facts["managed"] = managed_bytes(workload)
        self._found.facts |= saved_files(workload)
        peaks = self._meter.peaks.values()
        self._found.facts["allocator_check"] = check_replay(
            self._machine.stop_history(),
            self._meter.marks,
            allocated=max(peak.allocated for peak in peaks),
            reserved=max(peak.reserved for peak in peaks),
            rules=allocator_rules(self._scenario),
        )

    def _look(self) -> None:
        """What the allocator and the driver say now."""
        self._found.facts["cuda"] = torch.version.cuda
        self._found.facts["allocator_settings"] = settings(os.environ)
        self._found.facts["allocator"] = allocator_facts(self._machine.stats())
        self._found.context = self._machine.held()
        self._found.reserved_at_context = self._machine.allocator.counters().reserved

    def _timed(self, workload: Workload) -> None:
        self._say(f"timing {self._steps} steps")
        make_bare(workload)
        results: list[Tensor] = []
        self._machine.allocator.reset_peaks()
        times = self._machine.times(lambda: results.append(workload.run()), self._steps)
        self._found.facts["bare_steps_peak"] = self._machine.allocator.counters().allocated_peak
        for result in results:  # reading a loss waits for the device: not between the steps
            note_loss(result, self._losses)
        self._found.timings = timings(times, self._scenario, self._losses)

    def _attributed(self, workload: Workload) -> None:
        """The same step under the tracker, and by how much its peaks differ from the clean one's."""
        self._say("naming every byte")
        again = CudaMeter(self._machine.allocator)
        gc.collect()
        with self._tracker:
            self._tracker.resume(workload, _FIRST_PHASE.get(self._scenario.method, Phase.FORWARD))
            workload.meter = Several(again, self._tracker)
            if isinstance(workload, TrainingLoop):
                workload.evaluates = True
            workload.run()
        again.close()
        self._found.named = self._tracker.timeline().ledger(_MEASURED)
        before = self._machine.allocator.counters().requested
        self._machine.drop_workspaces()
        self._found.workspaces = before - self._machine.allocator.counters().requested
        self._found.facts["workspaces"] = self._found.workspaces
        self._found.facts["attributed_pass"] = {
            f"{phase.value}_more": peak.allocated - self._meter.peaks[phase].allocated
            for phase, peak in again.peaks.items()
        }

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        """Running out of memory inside is a warning: the figures are there already."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            self._found.warnings.append(f"{what} ran out of memory: {first_line(error)}")

    def _so_far(self) -> Ledger:
        """What lives when a run ends early, taken for every phase that was reached; the rest is unknown."""
        load = self._tracker.timeline().ledger(_MEASURED)
        held: dict[Component, int] = {}
        for block in self._tracker.live():
            if block.component is not None and not block.elsewhere:
                held[block.component] = held.get(block.component, 0) + block.bytes
        later = (phase for phase in self._meter.peaks if phase is not Phase.LOAD)
        entries = [Entry(phase, part, size, Basis.MEASURED) for phase in later for part, size in held.items()]
        return Ledger((*load.of(Phase.LOAD), *entries), load.steady)

    def _written(self, outcome: Outcome, note: str) -> Record:
        found = self._found
        return Record(
            engine="measure",
            device="cuda",
            scenario=self._scenario,
            parameters=found.parameters,
            bits_per_parameter=found.bits,
            ledger=Ledger(
                assemble(self._meter.peaks, found.named, found.workspaces, found.context, found.reserved_at_context),
                found.steady,
            ),
            reserved={phase: peak.reserved for phase, peak in self._meter.peaks.items()},
            libraries=library_versions(self._scenario),
            warnings=tuple(found.warnings),
            outcome=outcome,
            environment=found.facts,
            timings=found.timings,
            note=note,
        )


def assemble(
    peaks: Mapping[Phase, PhasePeak], named: Ledger, workspaces: int, context: Held | None, reserved: int
) -> tuple[Entry, ...]:
    """Entries that add up to the allocator's own peak in every phase, what nobody named as `unknown`.

    `ALLOCATOR` is what blocks have more than was asked for: rounding and unsplit remainders. Workspaces are made by
    the first matrix product, so the load phase has none. The context is what the process held less `reserved`.
    """
    entries: list[Entry] = []
    for phase, peak in peaks.items():
        entries += named.of(phase)
        library = workspaces if phase is not Phase.LOAD else 0
        rest = peak.requested - sum(entry.bytes for entry in named.of(phase)) - library
        parts = {
            Component.WORKSPACE: (library, "cuBLAS workspaces included"),
            Component.ALLOCATOR: (peak.allocated - peak.requested, "blocks less what was asked for"),
            Component.UNKNOWN: (rest, "asked of the allocator, not seen by the tracker"),
        }
        if context is not None:
            parts[Component.CONTEXT] = (max(0, context.bytes - reserved), f"{context.origin}, less reserved")
        entries += [Entry(phase, part, size, Basis.MEASURED, note) for part, (size, note) in parts.items() if size]
    return merge_entries(entries)


def managed_bytes(workload: Workload) -> int:
    """Optimizer states in CUDA managed memory: bitsandbytes marks them `is_paged`."""
    if not isinstance(workload, TrainingLoop):
        return 0
    states = (value for state in workload.optimizer.state.values() for value in state.values())
    return sum(value.untyped_storage().nbytes() for value in states if getattr(value, "is_paged", False))
