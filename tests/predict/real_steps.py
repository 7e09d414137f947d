"""What one real training step on the CPU allocates, as PyTorch's profiler hears it: independent of the closed form."""

import warnings
from typing import Any

import torch

from vramplan.ledger import Phase
from vramplan.measure.profiler import PhaseMarks
from vramplan.scenario import Scenario
from vramplan.training.meter import NoMeter
from vramplan.training.run import set_up

#: Kernels that take scratch memory of their own, which depends on the processor and its threads, not on the model:
#: oneDNN's packed operands, the flash kernel's tiles.
_KERNELS = (
    "aten::mm",
    "aten::bmm",
    "aten::addmm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
)

Change = tuple[int, int, tuple[str, ...]]  # address, bytes taken (or given back, negative), names of the operations


def real_peaks(scenario: Scenario) -> dict[Phase, int]:
    """The high-water mark of each phase, from the second run on, above what was held before; no kernels' scratch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' talk: paged states on CPU, one CPU thread for dropout, ...
        return _profiled(scenario)


def _profiled(scenario: Scenario) -> dict[Phase, int]:
    workload = set_up(scenario, torch.device("cpu"), NoMeter())
    for _ in range(2):
        workload.run()
    workload.meter = PhaseMarks()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        workload.run()
    recorder: Any = profile.profiler
    events: list[tuple[int, Change | Phase]] = []
    for event in recorder.kineto_results.experimental_event_tree():
        _collect(event, (), events)
    events.sort(key=lambda event: event[0])
    return _peaks([change for _, change in events])


def _collect(event: Any, path: tuple[str, ...], events: list[tuple[int, Change | Phase]]) -> None:
    from torch._C._profiler import _EventType

    mark = "vramplan phase "
    if event.tag == _EventType.Allocation:
        events.append((event.start_time_ns, (event.extra_fields.ptr, event.extra_fields.alloc_size, path)))
    elif event.name.startswith(mark):
        events.append((event.start_time_ns, Phase(event.name.removeprefix(mark))))
    for child in event.children:
        _collect(child, (*path, event.name), events)


def _peaks(changes: list[Change | Phase]) -> dict[Phase, int]:
    scratch = _scratch(changes)
    held, phase, peaks = 0, Phase.LOAD, dict[Phase, int]()
    for number, change in enumerate(changes):
        if isinstance(change, Phase):
            phase = change
        elif number not in scratch:
            held += change[1]
        peaks[phase] = max(peaks.get(phase, 0), held)
    peaks.pop(Phase.LOAD, None)
    return peaks


def _scratch(changes: list[Change | Phase]) -> set[int]:
    """The numbers of allocations that one call of a kernel both takes and gives back, and of their frees."""
    taken: dict[int, int] = {}
    found: set[int] = set()
    for number, change in enumerate(changes):
        if isinstance(change, Phase):
            continue
        address, size, path = change
        if size > 0:
            taken[address] = number
        elif address in taken:
            first = taken.pop(address)
            start = changes[first]
            assert not isinstance(start, Phase)
            inside = [name for name in path if name in _KERNELS]
            if inside and inside == [name for name in start[2] if name in _KERNELS]:
                found |= {first, number}
    return found
