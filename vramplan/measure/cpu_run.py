"""A scenario measured on this machine's CPU, in one process.

Load and a warm-up step (both tracked) -> the step that counts -> the same step under the profiler, as a check -> timed
bare steps.
"""

import gc
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from vramplan.ledger import Ledger
from vramplan.measure.cpu import CpuMeter, cpu_rules
from vramplan.measure.environment import library_versions
from vramplan.measure.run import Progress
from vramplan.measure.timings import make_bare, note_loss, timings
from vramplan.optimizers import optimizer
from vramplan.record import Outcome, Record
from vramplan.scenario import QuantType, Scenario
from vramplan.training.build import logits_width, random_weights_warning
from vramplan.training.counting import bits_per_parameter, count_parameters
from vramplan.training.loop import loop_facts
from vramplan.training.merge import saved_files
from vramplan.training.meter import Meter
from vramplan.training.run import Workload, set_up


class CpuRun:
    """One measurement: `record` runs it to its end."""

    def __init__(self, scenario: Scenario, steps: int, progress: Progress) -> None:
        self._scenario = scenario
        self._steps = steps
        self._say = progress
        self._meter = CpuMeter(vocab=logits_width(scenario), rules=cpu_rules(scenario.method))
        self._losses: list[float] = []

    def record(self) -> Record:
        """The record; whatever goes wrong is raised."""
        with self._meter:
            self._say("building the model")
            workload = set_up(self._scenario, torch.device("cpu"), self._meter, real_trainer=True)
            parameters, bits = count_parameters(workload.model), bits_per_parameter(workload.model)
            steady, holds = self._tracked(workload)
        ledger = replace(self._checked(workload, holds=holds), steady=steady)
        times = self._timed(workload)
        return Record(
            engine="measure",
            device="cpu",
            scenario=self._scenario,
            parameters=parameters,
            bits_per_parameter=bits,
            ledger=ledger,
            libraries=library_versions(self._scenario),
            warnings=tuple(_warnings(self._scenario)),
            outcome=Outcome.OK,
            environment={**saved_files(workload), **loop_facts(workload)},
            timings=timings(times, self._scenario, self._losses),
        )

    def _tracked(self, workload: Workload) -> tuple[int, bool]:
        """Warm up and run once more: the bytes held between two runs, and whether any were released after the last."""
        self._say("warming up")
        self._run(workload)
        self._say("measuring")
        self._run(workload)
        return self._meter.ledger().steady, workload.release()

    def _checked(self, workload: Workload, *, holds: bool) -> Ledger:
        """The ledger of everything that was tracked, checked by the profiler.

        The profiler does not hear the end of what was allocated before it began (c10/core/CPUAllocator.cpp 2.13 knows
        no size for it). So where a run `holds` something into the next one, that was dropped, and two are watched.
        """
        self._say("checking with the profiler")

        def watched(marks: Meter) -> None:
            workload.meter = marks
            for _ in range(2 if holds else 1):
                self._run(workload)

        self._meter.check(watched)
        return self._meter.ledger()

    def _timed(self, workload: Workload) -> list[float]:
        """Milliseconds of each bare run."""
        make_bare(workload)
        times = []
        for number in range(self._steps):
            self._say(f"timing step {number + 1} of {self._steps}")
            gc.collect()
            start = time.perf_counter()
            self._run(workload)
            times.append(1000 * (time.perf_counter() - start))
        return times

    def _run(self, workload: Workload) -> None:
        note_loss(workload.run(), self._losses)


def _warnings(scenario: Scenario) -> Iterator[str]:
    """What a reader must know about a CPU measurement of this scenario."""
    yield from random_weights_warning(scenario)
    if scenario.method.trains and optimizer(scenario.optimizer).paged:
        yield f"{scenario.optimizer}: bitsandbytes does not page on the CPU, its states are ordinary memory"
    if scenario.quant.type is QuantType.INT8:
        yield "int8: on the CPU bitsandbytes dequantises each matrix instead of multiplying in 8 bits"
