"""The child process of `measure`: `python -m vramplan.measure.child REQUEST ANSWER`, JSON files in and out."""

import gc
import os
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from vramplan.errors import CannotRun, VramplanError, first_line
from vramplan.ledger import Ledger
from vramplan.measure.cpu import MIXED_SUMS, CpuMeter
from vramplan.measure.environment import library_versions
from vramplan.measure.messages import Answer, Failed, Measured, Misasked, Request, Unable, read_request, write_message
from vramplan.measure.run import PROGRESS
from vramplan.measure.timings import note_loss, timings
from vramplan.optimizers import optimizer
from vramplan.record import Outcome, Parameters, Record
from vramplan.scenario import Load, Method, QuantType, Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.build import transformers_config
from vramplan.training.counting import bits_per_parameter, count_parameters
from vramplan.training.loop import TrainingLoop, loop_facts
from vramplan.training.merge import saved_files
from vramplan.training.meter import Meter, NoMeter
from vramplan.training.run import Workload, set_up


def main(request: Path, answer: Path) -> None:
    """Measure what the request asks for and write the answer: a record, a refusal, or how it failed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    write_message(_answer(read_request(request)), answer)


def _answer(request: Request) -> Answer:
    try:
        return Measured(_measured(request).to_json())
    except CannotRun as error:
        return Unable(error.message, error.hint)
    except VramplanError as error:
        return Misasked(error.message, error.hint)
    except Exception as error:
        return Failed(outcome_of(error), note_of(error))


def _measured(request: Request) -> Record:
    """The record that the request asks for; what it says about the machine is left to the parent."""
    warnings.simplefilter("ignore")  # the libraries' talk; what matters to the reader stands in the record's warnings
    scenario = _scenario(request)
    if request.device == "cpu":
        return measured_on_cpu(scenario, request.steps)
    from vramplan.measure.cuda_machine import CudaMachine
    from vramplan.measure.cuda_run import CudaRun

    return CudaRun(scenario, request.steps, CudaMachine(request.memory_limit), _say).record()


def measured_on_cpu(scenario: Scenario, steps: int) -> Record:
    """The record of a run on this machine's CPU."""
    losses: list[float] = []
    observed = _observed(scenario, torch.device("cpu"), losses)
    times = _timed(observed.workload, steps, losses)
    return Record(
        engine="measure",
        device="cpu",
        scenario=scenario,
        parameters=observed.parameters,
        bits_per_parameter=observed.bits,
        ledger=observed.ledger,
        libraries=library_versions(scenario),
        warnings=_warnings(scenario),
        outcome=Outcome.OK,
        environment={**saved_files(observed.workload), **loop_facts(observed.workload)},
        timings=timings(times, scenario, losses),
    )


class _Observed(NamedTuple):
    """A workload that was measured."""

    workload: Workload
    parameters: Parameters
    bits: float
    ledger: Ledger


def _observed(scenario: Scenario, device: torch.device, losses: list[float]) -> _Observed:
    """The loaded workload, and the ledger of its loading and of a run after the first, checked by the profiler."""
    rules = MIXED_SUMS if scenario.method is Method.MERGE else None
    meter = CpuMeter(vocab=int(transformers_config(scenario).get_text_config().vocab_size), rules=rules)
    with meter:
        _say("building the model")
        workload = set_up(scenario, device, meter, real_trainer=True)
        counted = count_parameters(workload.model), bits_per_parameter(workload.model)
        _say("warming up")
        note_loss(workload.run(), losses)
        _say("measuring")
        note_loss(workload.run(), losses)
        steady = meter.ledger().steady
        held = workload.release()
    _say("checking with the profiler")
    # The profiler does not hear the end of what was allocated before it began (c10/core/CPUAllocator.cpp 2.13 knows no
    # size for it): what a step holds over into the next was dropped, and two steps are watched.
    _check(meter, workload, 2 if held else 1, losses)
    return _Observed(workload, *counted, replace(meter.ledger(), steady=steady))


#: Plain RuntimeErrors that mean it too: torch's CPU allocator (c10/core/impl/alloc_cpu.cpp, 2.13), the CUDA driver, and
#: cuBLAS when the card has no room for its handle.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def outcome_of(error: Exception) -> Outcome:
    """`oom` when memory ran out, in any of the ways Python and torch say so; else `error`."""
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return Outcome.OOM if out_of_memory or any(word in str(error) for word in _OUT_OF_MEMORY) else Outcome.ERROR


def note_of(error: Exception) -> str:
    """One line: what kind of error, and the first line of what it says."""
    kind, first = type(error).__name__, first_line(error)
    return kind if first == kind else f"{kind}: {first}"


def _check(meter: CpuMeter, workload: Workload, steps: int, losses: list[float]) -> None:
    def watched(marks: Meter) -> None:
        workload.meter = marks
        for _ in range(steps):
            note_loss(workload.run(), losses)

    meter.check(watched)


def _timed(workload: Workload, steps: int, losses: list[float]) -> list[float]:
    """Milliseconds of each of `steps` bare runs."""
    workload.meter = NoMeter()
    if isinstance(workload, TrainingLoop):
        workload.evaluates = False
    times = []
    for number in range(steps):
        _say(f"timing step {number + 1} of {steps}")
        gc.collect()
        start = time.perf_counter()
        note_loss(workload.run(), losses)
        times.append(1000 * (time.perf_counter() - start))
    return times


def _warnings(scenario: Scenario) -> tuple[str, ...]:
    """What a reader must know about a CPU measurement of this scenario."""
    found = []
    if scenario.load_from is Load.CHECKPOINT and not scenario.model.path:
        found.append("the weights are random: no local checkpoint was given")
    if scenario.method.trains and optimizer(scenario.optimizer).paged:
        found.append(f"{scenario.optimizer}: bitsandbytes does not page on the CPU, its states are ordinary memory")
    if scenario.quant.type is QuantType.INT8:
        found.append("int8: on the CPU bitsandbytes dequantises each matrix instead of multiplying in 8 bits")
    return tuple(found)


def _scenario(request: Request) -> Scenario:
    scenario = scenario_from_mapping(request.scenario)
    return msgspec.structs.replace(scenario, model=msgspec.structs.replace(scenario.model, path=request.path))


def _say(text: str) -> None:
    print(f"{PROGRESS}{text}", file=sys.stderr, flush=True)


def _end_with_parent() -> None:
    """End this process when the parent's end of stdin closes, because the parent is gone."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
