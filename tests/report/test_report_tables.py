import io

import pandas
import pytest
from report_samples import FULL, report
from samples import FAILED, RECORD

from vramplan.ledger import Phase
from vramplan.report.tables import csv_bytes, parquet_bytes, report_frame
from vramplan.units import MIB


def test_components_of_a_phase_add_up_on_both_sides() -> None:
    frame = report_frame(report(RECORD))
    backward = frame[(frame.phase == "backward")]
    assert backward.bytes.sum() == RECORD.ledger.allocated(Phase.BACKWARD) == 6117 * MIB
    assert backward.predicted.sum() == 6017 * MIB
    assert set(backward.allocated) == {6117 * MIB}
    assert frame.predicted[frame.component == "unknown"].tolist() == [0]


def test_one_row_per_component_and_phase() -> None:
    frame = report_frame(FULL)
    assert not frame.duplicated(["source", "phase", "component"]).any()
    assert frame.groupby("source").size()["records/0.json"] == len(RECORD.ledger.entries)


def test_a_failed_run_is_a_row_without_bytes() -> None:
    (row,) = report_frame(report(FAILED)).to_dict("records")
    assert (row["outcome"], row["phase"], row["component"]) == ("timeout", "", "")
    assert pandas.isna(row["bytes"])


def test_csv_reads_back() -> None:
    frame = pandas.read_csv(io.BytesIO(csv_bytes(FULL)))
    assert len(frame) == len(report_frame(FULL))
    assert frame.bytes.sum() == report_frame(FULL).bytes.sum()


def test_parquet_reads_back() -> None:
    pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(io.BytesIO(parquet_bytes(FULL)))
    pandas.testing.assert_frame_equal(frame, report_frame(FULL))
