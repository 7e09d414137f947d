"""What only a GPU can show: the measurement against torch's own figures, the closed form and the trace."""

from typing import Any

import pytest
import torch
from training_phases import TRAINING_PHASES

from vramplan.ledger import STATIC_COMPONENTS, Component, Phase
from vramplan.measure.cuda import counters_of
from vramplan.measure.run import measure
from vramplan.predict.engine import predict_analytic
from vramplan.record import Outcome, Record
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.torch_release import release, youngest_first
from vramplan.units import MIB

pytestmark = pytest.mark.gpu

LLAMA = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def small(**changes: Any) -> Scenario:
    return scenario_from_mapping({"model": LLAMA, "batch": 2, "seq": 512, "load": "random", **changes})


@pytest.fixture(scope="module")
def record() -> Record:
    return measure(small(), device="cuda", steps=3)


def test_the_counters_have_the_names_that_are_read() -> None:
    kept = torch.empty(1000, device="cuda")
    counters = counters_of(torch.cuda.memory_stats())
    assert counters.allocated == torch.cuda.memory_allocated() >= kept.nbytes
    assert counters.allocated_peak == torch.cuda.max_memory_allocated()
    assert counters.reserved_peak == torch.cuda.max_memory_reserved()
    assert counters.allocations > counters.frees
    assert 0 < counters.requested_peak <= counters.allocated_peak


def test_of_free_blocks_of_one_size_that_is_taken_which_the_replay_takes() -> None:
    torch.cuda.empty_cache()
    segments = [torch.empty(32 * MIB, dtype=torch.uint8, device="cuda") for _ in range(4)]
    addresses = [segment.data_ptr() for segment in segments]
    del segments
    again = [torch.empty(32 * MIB, dtype=torch.uint8, device="cuda") for _ in range(4)]
    expected = addresses[::-1] if youngest_first(torch.__version__) else addresses
    assert [segment.data_ptr() for segment in again] == expected


def test_a_step_is_measured_and_named(record: Record) -> None:
    assert record.scenario.torch == release(torch.__version__)
    assert record.outcome is Outcome.OK, record.note
    assert record.ledger.phases == (Phase.LOAD, *TRAINING_PHASES)
    for phase in record.ledger.phases:
        assert abs(record.ledger.bytes(phase, Component.UNKNOWN)) <= 0.01 * record.ledger.peak, phase
    assert record.context > 50 * MIB
    assert record.timings["losses"] == sorted(record.timings["losses"], reverse=True)


def test_static_components_equal_the_closed_form_to_the_byte(record: Record) -> None:
    predicted = predict_analytic(record.scenario).ledger
    for component in STATIC_COMPONENTS:
        assert record.ledger.bytes(Phase.STEP, component) == predicted.bytes(Phase.STEP, component), component


def test_the_history_replayed_reserves_what_was_reserved(record: Record) -> None:
    check = record.environment["allocator_check"]
    assert check["replayed_allocated"] == pytest.approx(check["allocated"], rel=0.005)
    assert check["replayed_reserved"] == pytest.approx(check["reserved"], rel=0.02)


def test_the_two_passes_agree(record: Record) -> None:
    differences = record.environment["attributed_pass"].values()
    assert differences
    assert max(map(abs, differences)) <= 0.02 * record.ledger.peak


def test_too_little_memory_is_an_answer() -> None:
    record = measure(small(), device="cuda", steps=1, memory_limit=200 * MIB)
    assert record.outcome is Outcome.OOM
    assert "out of memory" in record.note
    assert record.ledger.bytes(Phase.LOAD, Component.WEIGHTS) > 0
    assert record.environment["memory_limit"] == 200 * MIB


def test_paged_states_are_in_managed_memory() -> None:
    scenario = small(optimizer="paged_adamw_32bit", lora={"rank": 128})
    record = measure(scenario, device="cuda", steps=1)
    assert record.outcome is Outcome.OK, record.note
    assert record.environment["managed"] > 0
    predicted = predict_analytic(scenario).ledger
    assert record.ledger.bytes(Phase.STEP, Component.OPTIMIZER) == predicted.bytes(Phase.STEP, Component.OPTIMIZER)
