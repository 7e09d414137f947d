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
from vramplan.compare import Pair
from vramplan.errors import UsageError
from vramplan.ledger import Component, Ledger, Phase
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import KIB, MIB


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("peak:1MB", "'1MB' is ambiguous"),
        ("peak:1G", "'1G' is ambiguous"),
        ("peak", "no amount"),
        ("peak:", "not an amount"),
        ("peak:-1%", "not an amount"),
        ("peak:1e3%", "not an amount"),
        ("weigths:0B", "unknown limit 'weigths'"),
        ("backward.logit:1%", "unknown component 'logit'"),
        ("backwards.logits:1%", "unknown phase 'backwards'"),
    ],
)
def test_a_limit_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_limits([text])
    assert words in error.value.message
    assert error.value.hint


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


def test_limits_on_nothing_are_said_or_refused() -> None:
    done = check(items([RECORD]), items([RECORD]), parse_limits(["peak:1%", "prefill:1%"]))
    assert done.notes == ("limit prefill:1% applied to nothing",)
    with pytest.raises(UsageError, match="no limit applies"):
        check(items([RECORD]), items([RECORD]), parse_limits(["reserved:1%"]))  # a cpu reserves nothing


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
