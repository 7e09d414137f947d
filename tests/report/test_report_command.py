import builtins
import json
import sys
from pathlib import Path

import pytest
from report_samples import ON_CARD, named
from samples import FAILED, RECORD

from vramplan.cli import main
from vramplan.record import save_result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a directory of three records."""
    monkeypatch.chdir(tmp_path)
    for name, record in {"cpu": RECORD, "card": ON_CARD, "failed": named(FAILED, "too slow")}.items():
        save_result(record, tmp_path / "records" / f"{name}.json")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_every_format_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "report", "records", "--html", "page.html", "--csv", "rows.csv")
    assert (code, err) == (0, "")
    assert [line.split(" (")[0] for line in out.splitlines()[-2:]] == ["wrote page.html", "wrote rows.csv"]
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert Path("rows.csv").read_text(encoding="utf-8").startswith("source,scenario,")
    assert sorted(path.name for path in here.iterdir()) == ["page.html", "records", "rows.csv"]  # nothing half-written


def test_text_is_the_default(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "report", "records")
    assert code == 0
    assert out.splitlines()[-1].startswith("3 records, 1 not compared: peak predicted with mean error")


def test_json_and_markdown_are_the_answer_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "report", "records/cpu.json", "--json", "--csv", "rows.csv")
    (row,) = json.loads(out)["errors"]
    assert row["allocated"]["measured"] == RECORD.ledger.peak
    _, out, _ = run(capsys, "report", "records/cpu.json", "--markdown")
    assert out.startswith("**1 record: peak predicted with")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], ["nowhere does not exist"]),
        (["records/cpu.json", "--html", "records"], ["--html", "'records'"]),
        (["records/cpu.json", "--csv", "records/cpu.json/x.csv"], ["--csv", "x.csv"]),
        (["records", "--json", "--markdown"], ["not allowed"]),
        ([], ["RECORDS"]),
    ],
)
def test_asked_wrongly(here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]) -> None:
    code, out, err = run(capsys, "report", *argv)
    assert (code, out) == (2, "")
    assert all(word in err for word in words)
    assert "hint:" in err
    assert [path.name for path in here.iterdir()] == ["records"]


@pytest.mark.parametrize(
    ("option", "module"),
    [("--csv", "pandas"), ("--html", "matplotlib"), ("--parquet", "pandas"), ("--parquet", "pyarrow")],
)
def test_a_missing_extra_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails, as where it is not installed
    code, _, err = run(capsys, "report", "records", option, "out.file")
    assert code == 3
    assert module in err
    assert "vramplan[report]" in err
    assert not Path("out.file").exists()


def test_text_needs_no_extra(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        assert name.split(".")[0] not in ("pandas", "numpy", "matplotlib", "torch")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    assert run(capsys, "report", "records", "--markdown")[0] == 0
