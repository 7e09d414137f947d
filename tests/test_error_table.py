from dataclasses import replace
from pathlib import Path

import pytest
from samples import FAILED, ON_CPU, PREDICTION, RECORD, check_golden

from vramplan.compare import Pair
from vramplan.error_table import Summary, error_table
from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.record import Device, Prediction, save_result
from vramplan.report.comparison import render_errors
from vramplan.report.layout import Page
from vramplan.report.markdown import errors_markdown
from vramplan.scenario import Scenario
from vramplan.units import GIB, MIB


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
    entries = list(ON_CPU.ledger.entries)
    first = next(i for i, e in enumerate(entries) if e.phase is Phase.FORWARD and e.component is Component.WEIGHTS)
    entries[first] = replace(entries[first], bytes=entries[first].bytes + 1)
    off_by_one = replace(ON_CPU.ledger, entries=tuple(entries))
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
