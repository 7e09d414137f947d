"""Measure a scenario in a child process: whatever happens to the child is an outcome in the record. No torch here."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from vramplan.allocator_settings import expandable_segments, with_expandable_segments
from vramplan.errors import UsageError
from vramplan.ledger import Ledger
from vramplan.measure.environment import (
    environment,
    installed_torch,
    library_versions,
    require_libraries,
    require_stack,
)
from vramplan.measure.host import available, check_host
from vramplan.measure.managed import check_managed
from vramplan.measure.messages import Answer, Failed, Measured, Request, read_answer, write_message
from vramplan.measure.nvml import first_visible, idle_card
from vramplan.record import Device, Outcome, Parameters, Record, result_from_json
from vramplan.scenario import Scenario

Progress = Callable[[str], None]

#: Begins the child's lines that are meant for people; everything else on its stderr is the libraries' talk.
PROGRESS = "vramplan: "


def measure(
    scenario: Scenario,
    *,
    device: Device = "cpu",
    steps: int = 3,
    timeout: float | None = None,
    memory_limit: int | None = None,
    progress: Progress = lambda text: None,
) -> Record:
    """What really training the scenario takes on this machine: bytes by phase and component, and step times.

    `steps` timed steps run without a meter, after the measured one. A child that dies, runs out of memory, fails or
    takes longer than `timeout` seconds is an outcome in the record; bad input and a machine that cannot are errors.
    `memory_limit` caps what PyTorch's allocator may reserve on the GPU: the fit of a smaller card, less its context.
    """
    if steps < 1:
        raise UsageError(f"steps: {steps} is not a number of steps", hint="at least 1")
    if memory_limit is not None and device != "cuda":
        raise UsageError("a memory limit is of the GPU's allocator", hint="measure with --device cuda")
    require_libraries()
    require_stack(scenario)
    if device == "cuda":
        expandable = scenario.expandable_segments or expandable_segments(os.environ)
        scenario = msgspec.structs.replace(scenario, torch=installed_torch(), expandable_segments=expandable)
    facts = _facts(scenario, device, memory_limit)
    with tempfile.TemporaryDirectory(prefix="vramplan-") as folder:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        asked = Request(scenario.to_mapping(), scenario.model.path, device, steps, memory_limit)
        write_message(asked, request)
        end = _run_child([str(request), str(answer)], _child_environment(scenario, device), timeout, progress)
        if end.outcome is None and answer.exists():
            return _from_answer(read_answer(answer), scenario, device, facts)
    return failed(scenario, device, facts, end.outcome or Outcome.ERROR, end.note)


def _facts(scenario: Scenario, device: Device, memory_limit: int | None) -> Mapping[str, Any]:
    """What the record says about the machine; CannotRun when it has no GPU, none that is idle, or too little memory."""
    facts = environment(device)
    if device == "cpu":
        check_host(scenario, free=available())
        return facts
    found = idle_card()
    check_managed(scenario, free=found.free, memory_limit=memory_limit)
    return {**facts, **found.facts()} | ({} if memory_limit is None else {"memory_limit": memory_limit})


#: OpenMP's threads sleep at barriers instead of spinning: on a busy machine spinning makes a step take minutes. CUDA
#: counts cards as the driver does.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


class _End(NamedTuple):
    """How the child ended."""

    outcome: Outcome | None
    """None where it ended by itself: its answer then says how."""
    note: str


def _child_environment(scenario: Scenario, device: Device) -> dict[str, str]:
    """This process's environment for the child, the allocator set as the scenario says.

    Of several cards it sees the one that a run takes: transformers' Trainer would use every card that is visible.
    """
    card = {"CUDA_VISIBLE_DEVICES": str(first_visible(os.environ))} if device == "cuda" else {}
    allocator = with_expandable_segments(os.environ) if scenario.expandable_segments else {}
    return {**_ENVIRONMENT, **os.environ, **card, **allocator}


def _run_child(arguments: list[str], variables: dict[str, str], timeout: float | None, progress: Progress) -> _End:
    """Run the child to its end; whatever interrupts the wait ends the child first."""
    child = subprocess.Popen(
        [sys.executable, "-m", "vramplan.measure.child", *arguments],
        stdin=subprocess.PIPE,  # the child ends itself when this closes: when this process is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends the child
        text=True,
        env=variables,
        errors="replace",
    )
    assert child.stderr is not None
    try:
        talk = _follow(child.stderr, timeout, progress)
        code = child.wait()
    except _TimeIsUp:
        return _End(Outcome.TIMEOUT, f"not finished after {timeout:g} s")
    finally:
        _stop(child)
    return _end(code, talk)


def _end(code: int, talk: list[str]) -> _End:
    if code == 0:
        return _End(None, talk[-1] if talk else "")
    if code < 0:
        name = signal.Signals(-code).name
        reason = " (the kernel does this when memory runs out)" if -code == signal.SIGKILL else ""
        return _End(Outcome.KILLED, f"the process was killed by {name}{reason}")
    return _End(Outcome.ERROR, talk[-1] if talk else f"the process ended with code {code}")


class _TimeIsUp(Exception):
    """The child took longer than it was given."""


def _follow(stream: IO[str], timeout: float | None, progress: Progress) -> list[str]:
    """Hand the child's progress on as it comes; its other lines, once it has closed the stream."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(stream, lines), daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    talk: list[str] = []
    while True:
        try:
            line = lines.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise _TimeIsUp from None
        if line is None:
            return talk
        if line.startswith(PROGRESS):
            progress(line.removeprefix(PROGRESS).rstrip())
        elif line.strip():
            talk.append(line.strip())


def _read(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _stop(child: "subprocess.Popen[str]") -> None:
    if child.poll() is None:
        child.kill()
        child.wait()
    for stream in (child.stdin, child.stderr):
        if stream is not None:
            stream.close()


def _from_answer(answer: Answer, scenario: Scenario, device: Device, facts: Any) -> Record:
    """The child's record about this scenario; or the error it was refused with; or how it failed."""
    if isinstance(answer, Failed):
        return failed(scenario, device, facts, answer.outcome, answer.note)
    if not isinstance(answer, Measured):
        raise answer.error()
    record = result_from_json(answer.record, source="the measurement")
    assert isinstance(record, Record)
    return replace(record, scenario=scenario, environment={**facts, **record.environment})


def failed(scenario: Scenario, device: Device, facts: Any, outcome: Outcome, note: str) -> Record:
    """The record of a run that ended before anything was measured."""
    return Record(
        engine="measure",
        device=device,
        scenario=scenario,
        parameters=Parameters(scenario.architecture.numel, 0, 0),
        bits_per_parameter=0.0,
        ledger=Ledger((), 0),
        libraries=library_versions(scenario),
        outcome=outcome,
        environment=facts,
        timings={},
        note=note,
    )
