"""The CUDA meter against an allocator that says what it is told to: peaks, carried high-water marks, places."""

from told_allocator import Told

from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.measure.cuda import CudaMeter, Mark, PhasePeak, allocator_facts, counters_of
from vramplan.measure.cuda_run import assemble
from vramplan.measure.nvml import Held
from vramplan.units import KIB, MIB


def test_each_phase_has_its_own_peak_and_reserved_is_the_runs() -> None:
    allocator = Told()
    meter = CudaMeter(allocator)
    meter.enter(Phase.LOAD)
    allocator.take(100, 512, 20 * MIB)
    allocator.take(1000, 1024, 2 * MIB)
    allocator.give(1000, 1024, 2 * MIB)  # with its segment, as after `empty_cache`
    meter.enter(Phase.FORWARD)
    allocator.take(600, 1024)
    meter.close()
    # load: 100 + 1000 asked for, 512 + 1024 in blocks; forward: 100 + 600, 512 + 1024; reserved never falls
    assert meter.peaks[Phase.LOAD] == PhasePeak(1536, 1100, 22 * MIB)
    assert meter.peaks[Phase.FORWARD] == PhasePeak(1536, 700, 22 * MIB)
    assert meter.marks == [Mark(Phase.LOAD, 0, 0), Mark(Phase.FORWARD, 2, 1)]


def test_a_phase_entered_twice_keeps_the_higher_mark() -> None:
    allocator = Told()
    meter = CudaMeter(allocator)
    for size in (512, 4096, 1024):
        meter.enter(Phase.FORWARD)
        allocator.take(size, size)
        meter.enter(Phase.BACKWARD)
        allocator.give(size, size)
    assert meter.peaks[Phase.FORWARD].allocated == 4096


def test_a_warm_up_is_forgotten_but_for_what_it_reserved() -> None:
    allocator = Told()
    meter = CudaMeter(allocator)
    meter.enter(Phase.LOAD)
    meter.enter(Phase.STEP)
    allocator.take(512, 512, 64 * MIB)
    allocator.give(512, 512, 64 * MIB)
    meter.forget_steps()
    assert list(meter.peaks) == [Phase.LOAD]
    meter.enter(Phase.STEP)
    meter.close()
    assert meter.peaks[Phase.STEP] == PhasePeak(0, 0, 64 * MIB)


def test_an_allocator_that_served_nothing_has_no_keys() -> None:
    assert set(counters_of({})) == {0}
    assert set(allocator_facts({}).values()) == {0}
    assert allocator_facts({"num_alloc_retries": 3})["retries"] == 3


def test_the_entries_of_a_phase_add_up_to_its_allocated_bytes() -> None:
    named = Ledger(
        (
            Entry(Phase.LOAD, Component.WEIGHTS, 700, Basis.MEASURED),
            Entry(Phase.LOSS, Component.WEIGHTS, 700, Basis.MEASURED),
            Entry(Phase.LOSS, Component.WORKSPACE, 50, Basis.MEASURED),
        ),
        0,
    )
    peaks = {Phase.LOAD: PhasePeak(1024, 700, 2 * MIB), Phase.LOSS: PhasePeak(2 * KIB, 1800, 2 * MIB)}
    held = Held(500 * MIB, "NVML, this process")
    ledger = Ledger(assemble(peaks, named, 1000, held, 2 * MIB), 0)
    assert {phase: ledger.allocated(phase) for phase in peaks} == {Phase.LOAD: 1024, Phase.LOSS: 2048}
    assert ledger.bytes(Phase.LOAD, Component.UNKNOWN) == 0
    # loss: 1800 asked for, 700 + 50 named, 1000 of workspaces
    assert ledger.bytes(Phase.LOSS, Component.UNKNOWN) == 50
    assert ledger.bytes(Phase.LOSS, Component.WORKSPACE) == 1050
    assert ledger.bytes(Phase.LOSS, Component.ALLOCATOR) == 248
    assert ledger.bytes(Phase.LOSS, Component.CONTEXT) == 498 * MIB
