import json
from dataclasses import replace
from pathlib import Path

import pytest
from samples import FAILED, ON_CPU, PREDICTION, RECORD, SCENARIO, check_golden

from vramplan.compare import Pair, Summary, compare, error_table
from vramplan.errors import UsageError
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase
from vramplan.record import Device, Prediction, save_result
from vramplan.report.comparison import render_comparison, render_errors
from vramplan.report.layout import Page, visible
from vramplan.report.markdown import comparison_markdown, errors_markdown
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import GIB, MIB


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


def test_a_phase_of_one_side_only_is_named() -> None:
    without = replace(RECORD, ledger=Ledger(RECORD.ledger.of(Phase.STEP), steady=RECORD.ledger.steady))
    comparison = compare(ON_CPU, without)
    assert [total.phase for total in comparison.totals] == [Phase.STEP]
    assert "only predicted (analytic) has the phase load, forward, loss, backward" in comparison.notes


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


def _records(directory: Path) -> Path:
    """Three good records, one of them below; a failed one; a prediction; something else."""
    save_result(RECORD, directory / "a.json")
    on_card = replace(RECORD, device="cuda", reserved={Phase.BACKWARD: 7 * GIB})
    save_result(on_card, directory / "gpu" / "b.json")
    exact = replace(RECORD, ledger=ON_CPU.ledger)
    save_result(exact, directory / "c.json")
    save_result(FAILED, directory / "failed.json")
    save_result(ON_CPU, directory / "prediction.json")
    (directory / "notes.json").write_text('{"schema": 7}')
    return directory


def _predict(scenario: Scenario, device: Device) -> Prediction:
    return PREDICTION if device == "cuda" else ON_CPU


def test_a_directory_of_records_is_a_table_of_errors(tmp_path: Path) -> None:
    errors = error_table(_records(tmp_path), _predict)
    assert [row.name for row in errors.rows] == ["a", "c", "gpu/b"]
    assert [row.error for row in errors.rows] == [-100 / 6117, 0.0, -100 / 6117]
    assert [row.static_equal for row in errors.rows] == [True, True, True]
    # 7,168 MiB reserved both predicted (5 GiB + 4 x 512 MiB) and measured
    assert [row.reserved for row in errors.rows] == [None, None, Pair(7 * GIB, 7 * GIB)]
    assert errors.allocated == Summary(mean=200 / 6117 / 3, median=100 / 6117, worst=100 / 6117)
    assert [text.split(":")[0] for text in errors.skipped] == ["failed.json", "notes.json", "prediction.json"]
    check_golden("errors.txt", render_errors(errors, Page()))
    check_golden("errors.md", errors_markdown(errors))
    body = errors.to_json()
    assert body["summary"]["allocated"]["worst"] == round(100 / 6117, 6)
    assert body["rows"][0]["allocated"]["predicted"] == 6017 * MIB


def test_a_static_byte_that_differs_is_seen(tmp_path: Path) -> None:
    entry = ON_CPU.ledger.entries[0]
    off_by_one = replace(ON_CPU.ledger, entries=(replace(entry, bytes=entry.bytes + 1), *ON_CPU.ledger.entries[1:]))
    save_result(RECORD, tmp_path / "a.json")
    errors = error_table(tmp_path, lambda scenario, device: replace(ON_CPU, ledger=off_by_one))
    assert [row.static_equal for row in errors.rows] == [False]


def test_a_directory_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record to compare"):
        error_table(tmp_path, _predict)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UsageError) as caught:
        error_table(tmp_path, _predict)
    assert "a.json" in caught.value.hint
