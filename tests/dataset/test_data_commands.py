"""`predict` and `plan` with a data set, as people type them."""

import json
import shlex
from pathlib import Path

import pytest
from plans import MODEL, fits, held

from vramplan.cli import main
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import parse_bytes


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(json.dumps({"model": MODEL, "load": "random", "batch": 2, "seq": 512}))
    Path("matrix.yaml").write_text(json.dumps({"model": MODEL, "matrix": {"seq": [16, 32]}}))
    Path("lengths.txt").write_text("\n".join(str(n) for n in (*range(20, 200), 700)))
    Path("bad.txt").write_text("5\nx\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


DATA = ("--lengths", "lengths.txt")


def test_the_longest_batch_decides(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long, short = Scenario.load("small.yaml"), Scenario.load("small.yaml", seq=199)
    budget = held(short) + (held(long) - held(short)) // 4  # far enough from the long one to be no `tight`
    assert fits(short, budget)
    assert not fits(long, budget)
    code, out, _ = run(capsys, "predict", "small.yaml", "--budget", str(budget), *DATA)
    assert code == 1
    lines = out.splitlines()
    assert lines[-1].startswith("does not fit: ")
    assert any(line.startswith("risk: the median batch fits, but 1.1% of the micro-batches") for line in lines)
    code, out, _ = run(capsys, "predict", "small.yaml", "--budget", str(budget), "--seq", "199", *DATA)
    assert code == 0
    assert out.splitlines()[-1].startswith(("fits: ", "tight: "))
    assert "risk" not in out


def test_json_is_of_the_longest_batch(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "small.yaml", "--seq", "4096", "--budget", "8GiB", *DATA, "--json")
    body = json.loads(out)
    assert (code, err) == (0, "")
    assert body["scenario"]["seq"] == 700
    assert body["dataset"]["max_length"] == 4096
    assert body["dataset"]["room"]["fits"] is body["verdict"]["fits"] is True
    assert body["dataset"]["batches"][-1]["allocated"] == body["peak"]["allocated"]
    assert scenario_from_mapping(body["scenario"]).seq == 700
    assert "dataset" not in json.loads(run(capsys, "predict", "small.yaml", "--json")[1])


def test_a_plan_says_what_each_batch_would_cut(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "small.yaml", "--budget", "1GiB", *DATA, "--json")
    body = json.loads(out)
    assert code == 0
    assert body["scenario"]["seq"] == 512
    rows = [(row["batch"], row["seq"]) for row in body["frontier"]]
    assert [(row["batch"], row["seq"]) for row in body["dataset"]["frontier"]] == rows
    lengths = (*range(20, 200), 700)
    for row in body["dataset"]["frontier"]:
        assert row["samples"] == sum(length > row["seq"] for length in lengths)


@pytest.mark.parametrize(
    "flags",
    [
        ("--sampler", "grouped"),
        ("--sampler", "packed"),
        ("--sampler", "packed", "--packing", "wrapped", "--attention", "flash_attention_2"),
        ("--pad-to-multiple-of", "64"),
        ("--device", "cpu"),
        ("--gpu", "t4", "--reserve", "1GiB", "--grad-accum", "2"),
    ],
    ids=" ".join,
)
def test_other_ways(here: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    code, out, err = run(capsys, "predict", "small.yaml", *DATA, *flags)
    assert (code, err) == (0, "")
    assert "181 samples" in out


def test_malformed_lines_are_refused_or_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "small.yaml", "--lengths", "bad.txt")
    assert (code, out) == (2, "")
    assert "1 of 2 lines are malformed: line 2: 'x'" in err
    code, out, _ = run(capsys, "predict", "small.yaml", "--lengths", "bad.txt", "--skip-bad")
    assert code == 0
    assert "1 malformed line left out" in out


def test_a_run_that_does_not_fit_points_to_a_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = held(Scenario.load("small.yaml", seq=199)) * 9 // 10
    code, out, _ = run(capsys, "predict", "small.yaml", "--budget", str(budget), "--seq", "199", *DATA)
    *_, line, blank, verdict = out.splitlines()
    assert (code, blank) == (1, "")
    command = shlex.split(line.removeprefix("what to change: "))
    assert command[:5] == ["vramplan", "plan", "small.yaml", "--seq", "199"]
    assert parse_bytes(command[6]) == budget
    code, out, _ = run(capsys, *command[1:])
    assert "samples beyond" in out
    same = verdict.partition(",")[0].removeprefix("does not fit: ")
    assert f"as given takes {same}" in out.splitlines()[-1]  # the plan speaks of the same run


def test_the_command_keeps_every_flag(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--batch", "512", "--no-double-quant", "--gpu", "rtx2060", "--set", "lora.rank=4", "--reserve", "1GiB"]
    _, out, _ = run(capsys, "predict", "small.yaml", *flags)
    assert out.splitlines()[-3] == f"what to change: vramplan plan small.yaml {' '.join(flags)}"
    assert "what to change" not in run(capsys, "predict", "small.yaml", "--gpu", "rtx2060")[1]
    merge = ("predict", "small.yaml", "--method", "merge")  # which plan refuses
    out = run(capsys, *merge, "--budget", "1MiB")[1]
    assert out.splitlines()[-3].startswith("what to change: merge on the CPU (--device cpu says ")
    assert run(capsys, *merge, "--device", "cpu")[0] == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--sampler", "grouped"], ["--sampler", "--data FILE"]),
        (["--skip-bad"], ["--skip-bad", "--data FILE"]),
        (["--data", "lengths.txt", "--lengths", "lengths.txt"], ["not allowed with"]),
        ([*DATA, "--tokenizer", "."], ["--tokenizer", "--data FILE"]),
        ([*DATA, "--sampler", "sorted"], ["'sorted'", "random, grouped, packed"]),
        ([*DATA, "--packing", "bfd"], ["--packing", "--sampler packed"]),
        ([*DATA, "--stack", "trl-dpo"], ["pairs of answers", "--seq"]),
        (["--lengths", "bad.txt", "--stack", "trl-dpo"], ["pairs of answers", "--seq"]),  # before the file is read
        ([*DATA, "--pad-to-multiple-of", "0"], ["--pad-to-multiple-of", "'0'"]),
        ([*DATA, "--engine", "trace"], ["--engine trace"]),
        ([*DATA, "--method", "inference"], ["inference does not train"]),
        (["--lengths", "."], ["directory"]),
        (["--lengths", "missing.txt"], ["missing.txt", "No such file"]),
        (["--lengths", "small.yaml"], ["small.yaml", ".jsonl"]),
        ([*DATA, "--budget", "1GiB", "--device", "cpu"], ["--budget", "CPU"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_arguments(here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]) -> None:
    code, out, err = run(capsys, "predict", "small.yaml", *argv)
    assert (code, out) == (2, ""), err
    assert "\nhint:  " in err
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize(
    "argv",
    [
        ["predict", "matrix.yaml", *DATA],
        ["plan", "matrix.yaml", "--budget", "1GiB", *DATA],
        ["plan", "small.yaml", "--gpu", "t4,a10", *DATA],
        ["plan", "small.yaml", "--gpu", "t4,a10", "--sampler", "grouped"],
        ["plan", "small.yaml", *DATA],
    ],
)
def test_one_scenario_on_one_card(here: Path, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, ""), err
    assert "hint:" in err
