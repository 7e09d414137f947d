import json
from dataclasses import replace

import pytest
from samples import FAILED, ON_CPU, PREDICTION, RECORD, SCENARIO, check_golden

from vramplan.compare import Pair, compare
from vramplan.errors import UsageError
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.report.comparison import percent, render_comparison
from vramplan.report.layout import Page, visible
from vramplan.report.markdown import comparison_markdown
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import MIB


def test_a_pair_relates_to_its_reference() -> None:
    assert (Pair(100, 110).difference, Pair(100, 110).relative) == (10, 0.1)
    assert (Pair(100, 90).difference, Pair(100, 90).relative) == (-10, -0.1)
    assert Pair(0, 0).relative == 0.0
    assert Pair(0, 5).relative is None


def test_the_measurement_is_the_reference_on_either_side() -> None:
    forth, back = compare(ON_CPU, RECORD), compare(RECORD, ON_CPU)
    assert (forth.reference, back.reference) == ("b", "a")
    # backward holds 100 MiB more than predicted: 6,117 MiB against 6,017
    assert forth.peak == back.peak == Pair(reference=6117 * MIB, other=6017 * MIB)
    assert forth.peak.difference == -100 * MIB
    assert [forth.side(forth.peak, letter) for letter in "ab"] == [6017 * MIB, 6117 * MIB]


def test_on_a_card_the_scenario_says_which_release_of_torch_is_predicted() -> None:
    own = scenario_from_mapping(SCENARIO.to_mapping() | {"torch": "2.12"})
    measured = replace(RECORD, device="cuda", scenario=own, libraries={"torch": "2.12.1+cu130", "peft": "0.1"})
    predicted = replace(PREDICTION, scenario=own, libraries={"torch": "2.13.0", "peft": "0.2"})
    assert compare(predicted, measured).notes == ("different peft: 0.2 against 0.1",)
    other = replace(predicted, scenario=SCENARIO)
    assert compare(measured, other).notes[0].startswith("different scenarios: torch 2.12 against 2.11")
    on_cpu = compare(replace(ON_CPU, libraries={"torch": "2.13.0"}), replace(RECORD, libraries={"torch": "2.14.0+cpu"}))
    assert "different torch: 2.13.0 against 2.14.0" in on_cpu.notes


def test_two_predictions_relate_to_the_first() -> None:
    smaller = replace(ON_CPU, ledger=Ledger(ON_CPU.ledger.entries[:4], steady=0))
    assert compare(ON_CPU, smaller).reference == "a"


def test_every_component_of_every_phase_is_compared_once() -> None:
    comparison = compare(ON_CPU, RECORD)
    differing = {(row.phase, row.component): row.pair for row in comparison.rows if row.pair.difference}
    assert differing == {
        (Phase.BACKWARD, Component.ACTIVATIONS): Pair(1124 * MIB, 1024 * MIB),
        (Phase.STEP, Component.UNKNOWN): Pair(4096, 0),
    }
    # load 4, forward and loss 7 each, backward 10, step 7 components, and what is unknown in step
    assert len(comparison.rows) == 4 + 7 + 7 + 10 + 7 + 1
    assert not comparison.equal
    assert compare(ON_CPU, ON_CPU).equal


def test_totals_are_the_phases_allocated_bytes() -> None:
    comparison = compare(ON_CPU, RECORD)
    assert [total.phase for total in comparison.totals] == list(RECORD.ledger.phases)
    assert all(total.reserved is None for total in comparison.totals)
    step = comparison.totals[-1].allocated
    assert step.reference - step.other == 4096
    assert comparison.steady.difference == 0


def test_reserved_is_compared_where_both_sides_reserve() -> None:
    more = replace(PREDICTION, reserved={phase: size + MIB for phase, size in PREDICTION.reserved.items()})
    reserved = [total.reserved for total in compare(PREDICTION, more).totals]
    assert [pair.difference if pair else None for pair in reserved] == [MIB] * 5


def test_notes_say_what_else_differs() -> None:
    other = scenario_from_mapping(SCENARIO.to_mapping() | {"batch": 2, "quant": {"double": False}, "name": "other"})
    notes = compare(replace(PREDICTION, scenario=other), RECORD).notes
    assert notes == (
        "different devices: cuda against cpu",
        "different scenarios: quant.double false against true; batch 2 against 4",
        "different torch: 2.13.0 against 2.14.0",
    )
    assert compare(PREDICTION, PREDICTION).notes == ()
    evaluated = scenario_from_mapping(SCENARIO.to_mapping() | {"eval": {"batch": 8, "accumulate": 1}})
    assert compare(PREDICTION, replace(PREDICTION, scenario=evaluated)).notes == (
        "different scenarios: eval none against {batch: 8, accumulate: 1}",
    )


def test_a_phase_of_one_side_only_is_named() -> None:
    without = replace(RECORD, ledger=Ledger(RECORD.ledger.of(Phase.STEP), steady=RECORD.ledger.steady))
    comparison = compare(ON_CPU, without)
    assert [total.phase for total in comparison.totals] == [Phase.STEP]
    assert "only predicted (analytic) has the phase load, forward, loss, backward" in comparison.notes
    # of two measurements the letter tells which
    assert "only b has the phase load, forward, loss, backward" in compare(without, RECORD).notes


def test_runs_without_memory_or_without_a_common_phase_are_refused() -> None:
    with pytest.raises(UsageError, match="no memory to compare") as caught:
        compare(ON_CPU, FAILED)
    assert "ended as timeout: no answer after 60 s" in caught.value.hint
    decoding = Ledger((Entry(Phase.DECODE, Component.WEIGHTS, 1, Basis.EXACT),), steady=1)
    with pytest.raises(UsageError, match="no phase in common"):
        compare(ON_CPU, replace(ON_CPU, ledger=decoding))


def test_json_spells_both_sides_and_the_difference() -> None:
    body = json.loads(json.dumps(compare(ON_CPU, RECORD).to_json()))
    assert (body["schema"], body["kind"], body["reference"], body["equal"]) == (1, "comparison", "b", False)
    assert body["a"]["peak"] == {"phase": "backward", "allocated": 6017 * MIB}
    relative = round(-100 / 6117, 6)
    expected = {"a": 6017 * MIB, "b": 6117 * MIB, "difference": -100 * MIB, "relative": relative}
    assert body["peak"] == body["phases"]["backward"]["allocated"] == expected
    unknown = [entry for entry in body["entries"] if entry["component"] == "unknown"]
    assert unknown == [
        {"phase": "step", "component": "unknown", "a": 0, "b": 4096, "difference": -4096, "relative": -1.0}
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 0])
def test_a_comparison_as_text(width: int) -> None:
    text = render_comparison(compare(ON_CPU, RECORD), Page(width))
    check_golden(f"compare-{width or 'pipe'}.txt", text)
    assert not width or max(map(visible, text.splitlines())) <= width


def test_a_comparison_with_reserved_and_as_markdown() -> None:
    check_golden(
        "compare-engines.txt", render_comparison(compare(PREDICTION, replace(PREDICTION, engine="trace")), Page())
    )
    check_golden("compare.md", comparison_markdown(compare(ON_CPU, RECORD)))


@pytest.mark.parametrize(
    ("relative", "text"),
    [(None, "new"), (0.0, "="), (-0.0142, "-1.42%"), (9.99, "+999.00%"), (1071.4286, "+107,143%")],
)
def test_a_percentage_has_no_hundredths_where_nobody_reads_them(relative: float | None, text: str) -> None:
    assert percent(relative) == text
