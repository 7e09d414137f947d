import json
from dataclasses import replace
from pathlib import Path

import pytest
from samples import ON_CPU, RECORD, check_golden

from vramplan.check.items import Item
from vramplan.check.limits import parse_allowance
from vramplan.cli import main
from vramplan.compare import Pair
from vramplan.errors import UsageError
from vramplan.history import History, Point, date_of, history
from vramplan.ledger import Component, Ledger, Phase
from vramplan.record import Outcome, Record, save_result
from vramplan.report.history_text import render_history, sparkline
from vramplan.report.layout import Page, visible
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import MIB

BASE = replace(RECORD, libraries={"torch": "2.13.0", "peft": "0.21.2"})


def dated(record: Record, date: str, **libraries: str) -> Record:
    return replace(
        record, environment={**record.environment, "date": date}, libraries={**record.libraries, **libraries}
    )


def grown(record: Record, size: int) -> Record:
    """`size` bytes more of the logits in backward, where the run peaks."""
    entries = tuple(
        replace(e, bytes=e.bytes + (size if (e.phase, e.component) == (Phase.BACKWARD, Component.LOGITS) else 0))
        for e in record.ledger.entries
    )
    return replace(record, ledger=Ledger(entries, record.ledger.steady))


def failed(record: Record) -> Record:
    return replace(record, ledger=Ledger((), 0), outcome=Outcome.OOM)


def saved(folder: Path, *records: Record) -> Path:
    """The records as files whose names are not in the order of their dates."""
    for i, record in enumerate(records):
        save_result(record, folder / f"{9 - i}.json")
    return folder


def moves(found: History) -> list[Point]:
    (series,) = found.series
    return list(series.moves)


#: Four releases: nothing, then peft takes 100 MiB more, then nothing, then torch takes 40 MiB less.
RELEASES = (
    dated(BASE, "2026-08-01T12:00:00+00:00"),
    dated(BASE, "2026-09-01T12:00:00+00:00", torch="2.14.0"),
    dated(grown(BASE, 100 * MIB), "2026-10-01T12:00:00+00:00", torch="2.14.0", peft="0.22.0"),
    dated(grown(BASE, 100 * MIB), "2026-11-01T12:00:00+00:00", torch="2.14.0", peft="0.22.1"),
    dated(grown(BASE, 60 * MIB), "2026-12-01T12:00:00+00:00", torch="2.15.0", peft="0.22.1"),
)


def test_the_first_record_that_moved_is_named_with_its_version(tmp_path: Path) -> None:
    first, second = moves(history(saved(tmp_path, *RELEASES)))
    assert first.item.source.endswith("7.json")
    assert first.move
    assert [str(change) for change in first.move.changes] == ["peft 0.21.2 -> 0.22.0"]
    assert first.move.peak == Pair(6117 * MIB, 6217 * MIB)
    assert first.move.most
    assert (first.move.most.phase, first.move.most.component) == (Phase.BACKWARD, Component.LOGITS)
    assert second.move
    assert [str(change) for change in second.move.changes] == ["torch 2.14.0 -> 2.15.0"]
    assert second.move.peak == Pair(6217 * MIB, 6177 * MIB)


def test_many_small_steps_are_a_move_in_the_end(tmp_path: Path) -> None:
    steps = [dated(grown(BASE, i * 20 * MIB), f"2026-01-{i + 1:02}") for i in range(9)]
    found = moves(history(saved(tmp_path, *steps), parse_allowance("1%", "--over")))
    # 1 % of 6,117 MiB is 61.17: passed at 80 MiB, and then again at 160 (1 % of 6,197 is 61.97)
    assert [point.date.day for point in found if point.date] == [5, 9]
    assert len(moves(history(tmp_path))) == 8


def test_a_run_that_fails_and_works_again_moves_twice(tmp_path: Path) -> None:
    runs = (dated(BASE, "2026-01-01"), dated(failed(BASE), "2026-01-02"), dated(BASE, "2026-01-03"))
    out, back = moves(history(saved(tmp_path, *runs)))
    assert out.move
    assert (out.move.outcome, out.move.peak) == ("ok -> oom", None)
    assert back.move
    assert (back.move.outcome, back.move.peak) == ("oom -> ok", Pair(6117 * MIB, 6117 * MIB))


def test_another_scenario_under_the_same_name_is_said(tmp_path: Path) -> None:
    other = scenario_from_mapping(BASE.scenario.to_mapping() | {"batch": 8})
    runs = (dated(BASE, "2026-01-01"), dated(replace(BASE, scenario=other), "2026-01-02"))
    (point,) = moves(history(saved(tmp_path, *runs)))
    assert point.move
    assert [str(change) for change in point.move.fields] == ["batch 4 -> 8"]


def test_dates_of_every_zone_are_in_order_and_undated_results_come_first(tmp_path: Path) -> None:
    runs = (
        dated(BASE, "2026-01-02T01:00:00+02:00"),  # 23:00 UTC on the 1st
        dated(BASE, "2026-01-01T23:30:00"),  # no zone: UTC
        dated(BASE, "2026-01-01T22:00:00Z"),
        dated(BASE, "yesterday"),
    )
    (series,) = history(saved(tmp_path, *runs)).series
    assert [Path(point.item.source).stem for point in series.points] == ["6", "7", "9", "8"]
    assert date_of(Item(ON_CPU, "a prediction")) is None


def test_files_without_a_date_are_in_the_order_people_count(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        save_result(ON_CPU, tmp_path / f"run-{i}" / "x.json")
    (series,) = history(tmp_path).series
    assert [Path(point.item.source).parent.name for point in series.points] == ["run-1", "run-2", "run-10"]


def test_each_scenario_engine_and_device_is_a_series_and_broken_files_are_listed(tmp_path: Path) -> None:
    save_result(ON_CPU, tmp_path / "prediction.json")
    save_result(BASE, tmp_path / "record.json")
    (tmp_path / "broken.json").write_text("{")
    found = history(tmp_path)
    assert [(series.key.engine, len(series.points)) for series in found.series] == [("analytic", 1), ("measure", 1)]
    assert len(found.skipped) == 1
    assert "broken.json is not JSON" in found.skipped[0]


@pytest.mark.parametrize("content", [None, "{"])
def test_nothing_to_show_is_an_error(content: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match="no record"):
        history(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        history(tmp_path / "nowhere")


def test_a_sparkline_spans_the_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([10, 10]) == "▄▄"
    assert sparkline([10, None, 80]) == "▁\N{MULTIPLICATION SIGN}█"
    assert sparkline([None]) == "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize("width", [0, 60, 120])
def test_rendered_whole(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("records"), *RELEASES, dated(failed(BASE), "2026-12-24T12:00:00+00:00"))
    save_result(ON_CPU, Path("records/prediction.json"))
    text = render_history(history(Path("records")), Page(width))
    assert not width or all(visible(line) <= width for line in text.splitlines())
    check_golden(f"history-{width or 'pipe'}.txt", text)


def test_one_result_each_is_no_history_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, RELEASES[0])
    assert main(["history", str(tmp_path)]) == 0
    last = "nothing to compare yet: 1 scenario with one result each"
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_the_command_prints_the_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, *RELEASES)
    assert main(["history", str(tmp_path), "--json"]) == 0
    (series,) = json.loads(capsys.readouterr().out)["series"]
    assert series["first_moved"] == str(tmp_path / "7.json")
    assert [bool(point["move"]) for point in series["points"]] == [False, False, True, False, True]
    assert series["points"][2]["move"]["changes"] == [{"what": "peft", "before": "0.21.2", "after": "0.22.0"}]
    assert main(["history", str(tmp_path), "--over", "5%"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing moved in 1 scenario"
    assert main(["history", str(tmp_path), "--over", "5GB"]) == 2
    assert "ambiguous" in capsys.readouterr().err
