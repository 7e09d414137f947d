"""The CPU step: bare, watched, and what the harness of `measure` adds to a loop written by hand."""

import gc
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from vramplan.measure.cpu import CpuMeter
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.training.batch import make_batches
from vramplan.training.meter import NoMeter
from vramplan.training.run import set_up
from vramplan.training.step import TrainingStep
from vramplan.units import human

pytestmark = pytest.mark.reference("torch")

CPU = torch.device("cpu")
#: Most that the harness may add to a step.
OVERHEAD = 0.02
PAIRS = 30
#: A step of about a tenth of a second, which is shorter than any step that people measure.
SMALL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def step() -> TrainingStep:
    """A LoRA step in fp32 as a tutorial's script runs it, loaded and warm."""
    scenario = scenario_from_mapping(
        {
            "model": SMALL,
            "method": "lora",
            "stack": "script",
            "seq": 256,
            "dtype": "float32",
            "compute_dtype": "float32",
        }
    )
    made = set_up(scenario, CPU, NoMeter())
    assert isinstance(made, TrainingStep)
    for _ in range(3):
        made.run()
    return made


def by_hand(step: TrainingStep) -> Callable[[], None]:
    """The same model, optimizer and batches in a plain loop, as a tutorial prints it."""
    model, optimizer = step.model, step.optimizer
    scenario: Scenario = step._scenario

    def run() -> None:
        for batch in make_batches(scenario, step._vocabulary, CPU, step.meter):
            loss = model(**batch)["loss"]
            loss.backward()
        if scenario.stack.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def test_a_bare_step(step: TrainingStep, benchmark: BenchmarkFixture) -> None:
    assert benchmark.pedantic(step.run, rounds=10).isfinite()


def test_a_watched_step(step: TrainingStep, benchmark: BenchmarkFixture) -> None:
    """Under the tracker, as the measured step of a record runs."""
    meter = CpuMeter(vocab=4096)
    with meter:
        step.meter = meter
        assert benchmark.pedantic(step.run, rounds=3).isfinite()
    step.meter = NoMeter()
    benchmark.extra_info["peak"] = meter.ledger().peak


def test_a_profiled_step(step: TrainingStep, benchmark: BenchmarkFixture) -> None:
    """Under PyTorch's profiler, as the check of a record runs."""
    meter = CpuMeter(vocab=4096)

    def checked() -> None:
        meter.check(lambda marks: setattr(step, "meter", marks) or step.run())

    benchmark.pedantic(checked, rounds=3)
    step.meter = NoMeter()


def test_what_the_harness_adds(step: TrainingStep, note: Callable[[str], None]) -> None:
    """The timed step of `measure` against the loop by hand, in turns; the median of the pairs' quotients.

    In processor time of one thread, which other processes disturb less than the clock on the wall.
    """
    hand = by_hand(step)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    hand()
    quotients, times = [], []
    for i in range(PAIRS):
        pair = {}
        for run in (step.run, hand) if i % 2 else (hand, step.run):
            gc.collect()
            start = time.thread_time()
            run()
            pair[run] = time.thread_time() - start
        quotients.append(pair[step.run] / pair[hand] - 1)
        times.append(pair[hand])
    torch.set_num_threads(threads)
    added = statistics.median(quotients)
    spread = statistics.quantiles(quotients, n=4)
    note(
        f"the harness adds {added:+.2%} to a step of {1000 * statistics.median(times):.0f} ms "
        f"(median of {PAIRS} pairs, quartiles {spread[0]:+.2%} to {spread[2]:+.2%}; at most {OVERHEAD:.0%})"
    )
    assert added <= OVERHEAD


def test_the_ledger_of_a_step(step: TrainingStep, benchmark: BenchmarkFixture) -> None:
    """Summing up what the tracker saw."""
    meter = CpuMeter(vocab=4096)
    with meter:
        step.meter = meter
        step.run()
    step.meter = NoMeter()
    benchmark.extra_info |= {"events": len(meter.events), "peak": human(meter.ledger().peak)}
    assert benchmark.pedantic(meter.ledger, rounds=5).peak
