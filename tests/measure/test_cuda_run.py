"""The passes of a GPU measurement, really training on the CPU: only the allocator and the driver are told."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from tiny_models import tiny
from told_allocator import Told
from training_phases import TRAINING_PHASES

from vramplan.ledger import Component, Phase
from vramplan.measure.bnb_kernels import cpu_opener
from vramplan.measure.cuda import Counters
from vramplan.measure.cuda_run import CudaRun
from vramplan.measure.cuda_tracker import CudaTracker
from vramplan.measure.nvml import Held
from vramplan.measure.run import measure
from vramplan.record import Outcome, Record, result_from_json
from vramplan.scenario import Scenario
from vramplan.units import KIB, MIB


class Growing(Told):
    """Takes a block at every mark: each phase's peak is above the one before."""

    def __init__(self, refuse_at: int) -> None:
        super().__init__()
        self._refuse_at = refuse_at
        self.marks = 0

    def counters(self) -> Counters:
        self.marks += 1
        if self.marks == self._refuse_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.take(4 * MIB - 100, 4 * MIB, 20 * MIB)
        return super().counters()


class Stand:
    """This machine's CPU where the GPU would be."""

    device = torch.device("cpu")

    def __init__(self, refuse_at: int = 0) -> None:
        self.allocator = Growing(refuse_at)

    def tracker(self, vocab: int) -> CudaTracker:
        return CudaTracker(vocab=vocab, device="cpu", openers={"bitsandbytes": cpu_opener()})

    def stats(self) -> Mapping[str, int]:
        return self.allocator.stats

    def start_history(self) -> None:
        pass

    def stop_history(self) -> Sequence[Mapping[str, Any]]:
        return [{"action": "alloc", "addr": 1, "size": 3 * MIB}]

    def times(self, run: Callable[[], object], steps: int) -> list[float]:
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - start))
        return times

    def held(self) -> Held:
        return Held(self.allocator.stats["reserved_bytes.all.current"] + 300 * MIB, "told")

    def drop_workspaces(self) -> None:
        self.allocator.give(64 * KIB, 64 * KIB)


def run(scenario: Scenario, stand: Stand) -> Record:
    return CudaRun(scenario, 2, stand, lambda text: None).record()


@pytest.fixture(scope="module")
def record() -> Record:
    return run(tiny(), Stand())


@pytest.fixture(scope="module")
def on_cpu() -> Record:
    return measure(tiny(), steps=1)


def test_every_phase_adds_up_to_the_allocators_peak(record: Record) -> None:
    assert (record.outcome, record.device) == (Outcome.OK, "cuda")
    assert record.ledger.phases == (Phase.LOAD, *TRAINING_PHASES)
    peaks = [record.ledger.allocated(phase) for phase in record.ledger.phases]
    assert all(peak % (4 * MIB) == 0 for peak in peaks)  # whole blocks of the told allocator, nothing lost or added
    assert peaks == sorted(set(peaks))


def test_the_tracker_that_rested_names_what_the_cpu_meter_names(record: Record, on_cpu: Record) -> None:
    """Weights to states by name, activations by life: the step seen last is the step that the CPU meter sees."""
    unnamed = {Component.UNKNOWN, Component.ALLOCATOR, Component.CONTEXT, Component.WORKSPACE}
    for phase in on_cpu.ledger.phases:
        for component in set(Component) - unnamed:
            assert record.ledger.bytes(phase, component) == on_cpu.ledger.bytes(phase, component), (phase, component)


def test_the_context_is_what_is_held_less_what_is_reserved(record: Record) -> None:
    # the mark at which reserved is read takes one more segment of 20 MiB than was held
    assert record.context == (300 - 20) * MIB


def test_reserved_never_falls_and_includes_the_warm_up(record: Record) -> None:
    marks = list(record.reserved.values())
    assert marks == sorted(marks)
    assert record.reserved[Phase.FORWARD] - record.reserved[Phase.LOAD] > 5 * 20 * MIB  # load to the second step


def test_losses_fall_and_times_are_kept(record: Record) -> None:
    losses = record.timings["losses"]
    assert len(losses) == 4  # warm-up, clean, two timed
    assert losses == sorted(losses, reverse=True)
    assert len(record.timings["steps_ms"]) == 2


def test_the_record_says_how_the_passes_and_the_replay_differ(record: Record) -> None:
    facts = record.environment
    assert set(facts["attributed_pass"]) == {f"{phase.value}_more" for phase in TRAINING_PHASES}
    assert facts["allocator_check"]["replayed_reserved"] == 20 * MIB  # one request of 3 MiB: a segment of 20 MiB
    assert facts["managed"] == 0  # nothing is paged on a CPU
    assert facts["allocator"]["retries"] == 0


def test_the_record_can_be_read_back(record: Record) -> None:
    assert result_from_json(record.to_json()).to_json() == record.to_json()


def test_generation_is_measured_the_same_way() -> None:
    record = run(tiny(method="inference", new_tokens=3), Stand())
    assert record.ledger.phases == (Phase.LOAD, Phase.PREFILL, Phase.DECODE)
    assert record.ledger.bytes(Phase.DECODE, Component.CACHE) > 0


def test_out_of_memory_while_loading_keeps_the_ledger_so_far() -> None:
    record = run(tiny(), Stand(refuse_at=3))
    assert record.outcome is Outcome.OOM
    assert record.note == "CUDA out of memory. Tried to allocate 2.00 GiB."
    assert record.ledger.phases[0] is Phase.LOAD
    assert record.ledger.bytes(Phase.LOAD, Component.WEIGHTS) == 92_160 // 2
    assert not record.timings


def test_out_of_memory_in_a_step_names_what_was_resident() -> None:
    record = run(tiny(), Stand(refuse_at=6))
    assert record.outcome is Outcome.OOM
    last = record.ledger.phases[-1]
    assert last is not Phase.LOAD
    assert record.ledger.bytes(last, Component.WEIGHTS) == 92_160 // 2
    assert record.ledger.bytes(last, Component.ADAPTERS) > 0
    assert record.context > 0
    assert set(record.environment["allocator"]) >= {"segments", "ooms", "retries"}
    assert result_from_json(record.to_json()).to_json() == record.to_json()


def test_out_of_memory_while_naming_loses_no_figure() -> None:
    stand = Stand()
    run(tiny(), stand)
    record = run(tiny(), Stand(refuse_at=stand.allocator.marks - 3))
    assert record.outcome is Outcome.OK
    assert record.timings["steps_ms"]
    assert "the attributed pass ran out of memory" in record.warnings[-1]


def test_a_merge_is_measured_from_loading_to_the_files() -> None:
    merged = run(tiny(method="merge", quant={"type": "nf4"}), Stand())
    assert (merged.outcome, merged.note) == (Outcome.OK, "")
    assert merged.ledger.phases == (Phase.LOAD, Phase.MERGE, Phase.SAVE)
    assert merged.environment["saved"]["files"] == 1
    assert set(merged.environment["attributed_pass"]) == {"load_more", "merge_more", "save_more"}
    assert (
        merged.ledger.bytes(Phase.SAVE, Component.ADAPTERS) == 0 < merged.ledger.bytes(Phase.MERGE, Component.ADAPTERS)
    )


def test_an_evaluation_is_a_phase_and_no_part_of_a_steps_time() -> None:
    evaluated = run(tiny(eval={"batch": 2, "accumulate": 2}), Stand())
    assert evaluated.outcome is Outcome.OK
    assert evaluated.ledger.phases == (Phase.LOAD, *TRAINING_PHASES, Phase.EVALUATION)
    assert "evaluation_more" in evaluated.environment["attributed_pass"]
    assert evaluated.ledger.bytes(Phase.EVALUATION, Component.LOGITS) > 0
