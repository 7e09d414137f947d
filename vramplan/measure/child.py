"""The child process of `measure`: `python -m vramplan.measure.child REQUEST ANSWER`, JSON files in and out."""

import os
import sys
import threading
import warnings
from pathlib import Path

import msgspec
import torch

from vramplan.errors import CannotRun, VramplanError, first_line
from vramplan.measure.cpu_run import CpuRun
from vramplan.measure.messages import Answer, Failed, Measured, Misasked, Request, Unable, read_request, write_message
from vramplan.measure.run import PROGRESS
from vramplan.record import Outcome, Record
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping


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
        return CpuRun(scenario, request.steps, _say).record()
    from vramplan.measure.cuda_machine import CudaMachine
    from vramplan.measure.cuda_run import CudaRun

    return CudaRun(scenario, request.steps, CudaMachine(request.memory_limit), _say).record()


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
