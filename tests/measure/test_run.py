"""`measure` really trains, in a child; whatever happens to that child is an outcome in the record."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psutil
import pytest
from tiny_models import tiny
from training_phases import TRAINING_PHASES

from vramplan.errors import CannotRun, UsageError
from vramplan.ledger import Component, Phase
from vramplan.measure import environment
from vramplan.measure.cpu_run import CpuRun
from vramplan.measure.run import measure
from vramplan.record import Outcome, Record, load_result, save_result


@pytest.fixture(scope="module")
def heard() -> list[str]:
    """What `record` told of its progress."""
    return []


@pytest.fixture(scope="module")
def record(heard: list[str]) -> Record:
    return measure(tiny(seq=96), steps=2, progress=heard.append)


def test_a_step_is_measured_in_every_phase(record: Record) -> None:
    assert record.outcome is Outcome.OK, record.note
    assert record.ledger.phases == (Phase.LOAD, *TRAINING_PHASES)
    assert record.ledger.peak >= record.ledger.steady > 0


def test_parameters_are_those_of_the_configuration(record: Record) -> None:
    # layer: q and o 64x64, k and v 32x64, three matrices 176x64 -> 46,080; two layers; norms 2x64 each and a last one
    quantized = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 176 * 64)
    assert record.parameters.quantized == quantized == 92_160
    assert record.parameters.total == quantized + 2 * 256 * 64 + 5 * 64
    # rank 16 on seven matrices: 16 x (in + out)
    assert record.parameters.trainable == 2 * 16 * (4 * 64 + 2 * (64 + 64 + 32) + 3 * (64 + 176) - 2 * 64)


def test_packed_weights_are_half_a_byte_each(record: Record) -> None:
    assert record.ledger.bytes(Phase.STEP, Component.WEIGHTS) == 92_160 // 2


def test_what_the_profiler_alone_saw_is_within_one_percent(record: Record) -> None:
    for phase in TRAINING_PHASES:
        unknown = record.ledger.bytes(phase, Component.UNKNOWN)
        assert abs(unknown) <= 0.01 * record.ledger.allocated(phase)


def test_loss_falls_on_the_repeated_batch(record: Record) -> None:
    losses = record.timings["losses"]
    assert len(losses) == 5  # warm-up, measured, checked, two timed
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5


def test_step_times_are_recorded(record: Record) -> None:
    assert len(record.timings["steps_ms"]) == 2
    assert 0 < record.timings["step_ms_min"] <= record.timings["step_ms"] <= record.timings["step_ms_max"]


def test_the_record_survives_its_file(record: Record, tmp_path: Path) -> None:
    save_result(record, tmp_path / "record.json")
    assert load_result(tmp_path / "record.json").to_json() == record.to_json()


def test_progress_is_told_in_order(record: Record, heard: list[str]) -> None:
    assert record.outcome is Outcome.OK
    assert heard[0] == "building the model"
    assert heard[-1] == "timing step 2 of 2"


def test_inference_has_prefill_decode_and_a_cache() -> None:
    record = CpuRun(tiny(method="inference", batch=1, new_tokens=4), 1, print).record()
    assert record.ledger.phases == (Phase.LOAD, Phase.PREFILL, Phase.DECODE)
    # keys and values, 2 layers, 2 heads of 16, bfloat16, 64 + 3 tokens: the last token is never fed back
    assert record.ledger.bytes(Phase.DECODE, Component.CACHE) >= 2 * 2 * 2 * 16 * 2 * 67
    assert "losses" not in record.timings or not record.timings["losses"]


def test_running_longer_than_allowed_is_an_outcome() -> None:
    record = measure(tiny(), timeout=0.2)
    assert record.outcome is Outcome.TIMEOUT
    assert record.note == "not finished after 0.2 s"
    assert record.to_json()["phases"] == {}


def test_a_killed_child_is_an_outcome() -> None:
    def kill(text: str) -> None:
        for child in psutil.Process().children():
            os.kill(child.pid, signal.SIGKILL)

    record = measure(tiny(), progress=kill)
    assert record.outcome is Outcome.KILLED
    assert "SIGKILL" in record.note
    assert "\n" not in record.note


# the tokens of one batch are 2^24 x 2^24 x 8 bytes: 2 PiB, more than a process can address, whatever a kernel promises
ENORMOUS = {"seq": 2**24, "batch": 2**24}


def test_what_no_machine_holds_is_not_begun() -> None:
    with pytest.raises(CannotRun, match="TiB of main memory"):
        measure(tiny(**ENORMOUS))


def test_running_out_of_memory_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("vramplan.measure.run")
    monkeypatch.setattr(module, "available", lambda: None)  # as where no file says what is available
    record = measure(tiny(**ENORMOUS))
    assert record.outcome is Outcome.OOM
    assert "allocate" in record.note
    assert "\n" not in record.note


def test_ctrl_c_ends_the_child_and_is_passed_on() -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(tiny(), progress=interrupt)
    assert psutil.Process().children() == []


def test_a_target_that_matches_nothing_is_bad_input() -> None:
    with pytest.raises(UsageError, match="q_porj") as caught:
        measure(tiny(lora={"targets": ["q_porj"]}))
    assert "did you mean 'q_proj'" in caught.value.hint


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LIBRARIES", ("torch", "no_such_library"))
    with pytest.raises(CannotRun, match="no_such_library") as caught:
        measure(tiny())
    assert caught.value.hint == "pip install 'vramplan[measure]'"


def test_no_steps_is_bad_input() -> None:
    with pytest.raises(UsageError, match="steps: 0"):
        measure(tiny(), steps=0)


def test_importing_measure_does_not_load_torch() -> None:
    code = "import sys, vramplan.measure.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
