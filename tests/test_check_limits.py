"""What a limit means, and which results may be compared."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from gate_samples import CUDA, changed, grown, items
from samples import PREDICTION, RECORD, SCENARIO

from vramplan.check import DEFAULT_LIMITS, check, parse_limits
from vramplan.check.limits import Amount, Cell, Limit, Measure, Percent
from vramplan.check.sameness import different_fields, other_changes
from vramplan.compare import Pair, Row
from vramplan.errors import UsageError
from vramplan.ledger import Component, Ledger, Phase
from vramplan.record import Prediction, Record
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import KIB, MIB


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("peak:1MB", "'1MB' is ambiguous", "write 1MiB"),
        ("peak:1G", "'1G' is ambiguous", "write 1GiB"),
        ("peak", "limit 'peak' has no amount", "peak:1%"),
        (1, "limit '1' has no amount", "peak:1%"),
        ("peak:", "not an amount", "such as 1% or 2MiB"),
        ("peak:%", "'%' is not an amount", "such as 1% or 2MiB"),
        ("step:-1%", "'-1%' is not an amount", "such as 1% or 2MiB"),
        ("peak:1e3%", "not an amount", "such as 1% or 2MiB"),
        ("peak:1", "'1' is a number without a unit", "write 1%, 1MiB or 1B"),
        ("weigths:0B", "unknown limit 'weigths'", "did you mean 'weights'?"),
        ("backward.logit:1%", "unknown component 'logit'", "did you mean 'logits'?"),
        ("backwards.logits:1%", "unknown phase 'backwards'", "did you mean 'backward'?"),
    ],
)
def test_a_limit_that_is_none_is_refused(text: Any, words: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_limits([text])
    assert words in error.value.message
    assert hint in error.value.hint


def test_limits_as_people_write_them() -> None:
    assert parse_limits(["peak:1.5%", "backward.activations:2MiB", "step:backward:0"]) == (
        Limit(Measure.PEAK, Percent(Fraction(3, 2))),
        Limit(Cell(Phase.BACKWARD, Component.ACTIVATIONS), Amount(2 * MIB)),
        Limit(Phase.STEP, Amount(0)),
        Limit(Phase.BACKWARD, Amount(0)),
    )
    assert [str(limit) for limit in DEFAULT_LIMITS] == ["peak:0.5%", "phases:0.5%", "steady:0.5%", "reserved:0.5%"]
    assert str(parse_limits(["backward.logits:512KiB"])[0]) == "backward.logits:512KiB"


def test_a_percentage_is_exact_at_its_edge() -> None:
    one = Percent(Fraction(1))
    assert one.allows(Pair(100 * 2**50, 101 * 2**50))
    assert not one.allows(Pair(100 * 2**50, 101 * 2**50 + 1))
    assert not one.allows(Pair(0, 1))
    assert one.allows(Pair(0, 0))


@pytest.mark.parametrize(
    ("limit", "fault", "passes"),
    [
        ("peak:2%", (Phase.BACKWARD, Component.LOGITS, 100 * MIB), True),  # 1.63 % of 6,117 MiB
        ("peak:1%", (Phase.BACKWARD, Component.LOGITS, 100 * MIB), False),
        ("peak:1%", (Phase.FORWARD, Component.ACTIVATIONS, 100 * MIB), True),  # below the peak all the same
        ("forward:100MiB", (Phase.FORWARD, Component.ACTIVATIONS, 100 * MIB), True),
        ("forward:100MiB", (Phase.FORWARD, Component.ACTIVATIONS, 100 * MIB + 1), False),
        ("backward:0B", (Phase.FORWARD, Component.ACTIVATIONS, 100 * MIB), True),
        ("backward:0B", (Phase.BACKWARD, Component.LOGITS, -100 * MIB), True),  # less is no growth
        ("unquantized:0B", (None, Component.UNQUANTIZED, 1), False),
        ("unquantized:0B", (None, Component.WEIGHTS, KIB), True),
        ("load.weights:0B", (Phase.STEP, Component.WEIGHTS, KIB), True),
        ("load.weights:0B", (Phase.LOAD, Component.WEIGHTS, KIB), False),
    ],
)
def test_a_limit_judges_its_subject_alone(limit: str, fault: tuple[Any, Component, int], passes: bool) -> None:
    done = check(items([grown(CUDA, *fault)]), items([CUDA]), parse_limits([limit]))
    assert done.passed is passes


def test_the_context_belongs_to_the_device_alone() -> None:
    bigger = replace(
        PREDICTION,
        ledger=Ledger(
            tuple(
                replace(e, bytes=e.bytes + (200 * MIB if e.component is Component.CONTEXT else 0))
                for e in PREDICTION.ledger.entries
            ),
            PREDICTION.ledger.steady,
        ),
    )
    for limit, passes in (("device:1%", False), ("reserved:0B", True), ("phases:0B", True)):
        assert check(items([bigger]), items([PREDICTION]), parse_limits([limit])).passed is passes


def culprit(limit: str, new: Record | Prediction, baseline: Record | Prediction) -> Row | None:
    (case,) = check(items([new]), items([baseline]), parse_limits([limit])).cases
    return case.findings[0].culprit


def test_the_culprit_of_what_stays_between_steps_stays_between_steps() -> None:
    fault = grown(CUDA, None, Component.UNQUANTIZED, 60 * MIB)
    fault = grown(fault, Phase.BACKWARD, Component.LOGITS, 200 * MIB)
    fault = grown(fault, Phase.LOAD, Component.WEIGHTS, 300 * MIB)
    fault = replace(fault, ledger=Ledger(fault.ledger.entries, CUDA.ledger.steady + 60 * MIB))
    pair = Pair(1024 * MIB, 1084 * MIB)
    assert culprit("steady:1%", fault, CUDA) == Row(Phase.FORWARD, Component.UNQUANTIZED, pair)
    unexplained = replace(CUDA, ledger=Ledger(CUDA.ledger.entries, CUDA.ledger.steady + 60 * MIB))
    assert culprit("steady:1%", unexplained, CUDA) is None


def test_the_culprit_of_reserved_is_in_a_phase_that_needed_more() -> None:
    fault = grown(CUDA, Phase.LOAD, Component.WEIGHTS, 300 * MIB)  # for which 5 of the 7 GiB are enough
    fault = grown(fault, Phase.STEP, Component.GRADIENTS, 200 * MIB)
    fault = replace(fault, reserved={**CUDA.reserved, Phase.STEP: CUDA.reserved[Phase.STEP] + 200 * MIB})
    pair = Pair(152 * MIB, 352 * MIB)
    assert culprit("reserved:1%", fault, CUDA) == Row(Phase.STEP, Component.GRADIENTS, pair)


def test_the_context_is_a_culprit_of_the_device_alone() -> None:
    entries = (
        replace(e, bytes=e.bytes + (200 * MIB if e.component is Component.CONTEXT else 0))
        for e in grown(PREDICTION, Phase.BACKWARD, Component.LOGITS, 150 * MIB).ledger.entries
    )
    fault = replace(PREDICTION, ledger=Ledger(tuple(entries), PREDICTION.ledger.steady))
    logits = Row(Phase.BACKWARD, Component.LOGITS, Pair(250 * MIB, 400 * MIB))
    assert culprit("peak:1%", fault, PREDICTION) == culprit("backward:1%", fault, PREDICTION) == logits
    context = Row(Phase.LOAD, Component.CONTEXT, Pair(300 * MIB, 500 * MIB))
    assert culprit("device:1%", fault, PREDICTION) == context


def test_limits_on_nothing_are_said_or_refused() -> None:
    done = check(items([RECORD]), items([RECORD]), parse_limits(["peak:1%", "prefill:1%"]))
    assert done.notes == ("limit prefill:1% applied to nothing",)
    with pytest.raises(UsageError, match="no limit applies to any result: evaluation:1%, reserved:1%") as caught:
        check(items([RECORD]), items([RECORD]), parse_limits(["evaluation:1%", "reserved:1%"]))  # a cpu's
    assert caught.value.hint == (
        "these results have peak, steady, phases, load, forward, loss, backward, step, weights, quant-state, "
        "unquantized, adapters, gradients, optimizer, activations, logits, workspace, allocator, unknown"
    )
    with pytest.raises(UsageError) as caught:
        check(items([CUDA]), items([CUDA]), parse_limits(["evaluation:1%"]))
    assert caught.value.hint.startswith("these results have peak, steady, phases, reserved, device, load, ")


def test_fields_without_effect_on_memory_are_not_asked() -> None:
    dropout = SCENARIO.to_mapping()["lora"] | {"dropout": 0.05}
    a, b = (
        changed(RECORD, lora=dropout),
        changed(RECORD, lora=dropout | {"dropout": 0.1}, new_tokens=7, gpu="a100-40gb"),
    )
    assert different_fields(a, b) == ()  # a mask of the same size; no tokens are generated; the memory is a cpu's
    assert [change.what for change in different_fields(RECORD, a)] == ["lora.dropout"]
    inference = [
        replace(RECORD, scenario=scenario_from_mapping({"name": "i", "model": "llama-2-7b", "method": "inference"} | k))
        for k in ({}, {"optimizer": "sgd", "lora": {"rank": 8}}, {"new_tokens": 7})
    ]
    assert different_fields(inference[0], inference[1]) == ()
    assert [str(c) for c in different_fields(inference[0], inference[2])] == ["new_tokens 128 -> 7"]


def test_a_changed_model_is_judged_and_named() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 2, "_name_or_path": "mine", "transformers_version": "5"}
    a = changed(RECORD, model=config)
    b = changed(RECORD, model=config | {"num_hidden_layers": 3, "transformers_version": "6"})
    assert different_fields(a, b) == ()
    assert [str(change) for change in other_changes(a, b)] == ["model.num_hidden_layers 2 -> 3"]
    listed = (
        changed(RECORD, model=config | {"mlp_only_layers": []}),
        changed(RECORD, model=config | {"mlp_only_layers": [0, 1]}),
    )
    assert [str(change) for change in other_changes(*listed)] == ["model.mlp_only_layers none -> 0+1"]
    other = changed(RECORD, model=config | {"_name_or_path": "yours"})
    assert [change.what for change in different_fields(a, other)] == ["model"]


def test_versions_of_libraries_driver_and_python_are_changes() -> None:
    new = replace(
        CUDA, libraries={"torch": "2.14.0", "triton": "3.5"}, environment=CUDA.environment | {"driver": "570"}
    )
    assert [str(change) for change in other_changes(CUDA, new)] == [
        "peft 0.21.2 -> none",
        "driver 550.54 -> 570",
        "triton none -> 3.5",
    ]
