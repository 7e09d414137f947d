import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from oom_samples import V29
from samples import FAILED, ON_CPU, RECORD

import vramplan
from vramplan.catalog.gpus import gpu
from vramplan.cli import build_parser, main
from vramplan.commands import all_commands, commands_for
from vramplan.commands.flags import takes_path
from vramplan.doctor import diagnose
from vramplan.errors import UsageError
from vramplan.record import load_result, save_result
from vramplan.scenario_schema import SECTIONS, ScenarioKeys

MODEL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "tie_word_embeddings": False,
}
ENV = os.environ | {"PYTHONPATH": str(Path(vramplan.__file__).parent.parent), "PYTHONWARNINGS": "error"}
#: A small scenario in JSON, which is YAML too.
TINY = json.dumps({"model": MODEL, "seq": 16, "load": "random", "lora": {"rank": 4}})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a scenario, a model, records, and what is broken in many ways."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", ENV["PYTHONPATH"])  # for child processes, which start in this directory
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "matrix.yaml").write_text(json.dumps({**json.loads(TINY), "matrix": {"seq": [16, 32]}}))
    for name, config in {"model": json.dumps(MODEL), "broken": "{", "list": "[1]", "deep": "[" * 100_000}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    (tmp_path / "empty").mkdir()
    (tmp_path / "missing-key").mkdir()
    (tmp_path / "missing-key" / "config.json").write_text('{"model_type": "llama", "vocab_size": 5}')
    (tmp_path / "negative").mkdir()
    (tmp_path / "negative" / "config.json").write_text(json.dumps(MODEL | {"num_hidden_layers": -1}))
    (tmp_path / "text-sizes").mkdir()
    (tmp_path / "text-sizes" / "config.json").write_text(json.dumps(MODEL | {"hidden_size": "64"}))
    (tmp_path / "alien").mkdir()
    (tmp_path / "alien" / "config.json").write_text('{"model_type": "no-such-family"}')
    save_result(RECORD, tmp_path / "record.json")
    save_result(ON_CPU, tmp_path / "prediction.json")
    save_result(FAILED, tmp_path / "failed.json")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


#: What is asked wrongly, and words that the complaint must have: the value, and a way out.
BAD_ARGUMENTS: list[tuple[list[str], list[str]]] = [
    ([], ["COMMAND", "--help"]),
    (["predct", "tiny.yaml"], ["'predct'", "did you mean 'predict'?"]),
    (["predict"], ["TARGET"]),
    (["predict", "tiny.yaml", "--bacth", "2"], ["'--bacth'", "did you mean '--batch'?"]),
    (["predict", "tiny.yaml", "other.yaml"], ["'other.yaml'"]),
    (["predict", "tiny.yaml", "--batch"], ["--batch", "expected one argument"]),
    (["predict", "llama-2-7b", "--gpu", ""], ["--gpu", "empty"]),
    (["plan", "tiny.yaml", "--goal", "cheapest-gpu", "--gpu", "t4"], ["--gpu t4", "leave --gpu out"]),
    (["predict", "llma-2-7b"], ["'llma-2-7b'", "did you mean 'llama-2-7b'?"]),
    (["predict", "no/such-model"], ["'no/such-model'", "directory"]),
    (["predict", "missing.yaml"], ["missing.yaml", "no such file"]),
    (["predict", "empty"], ["empty", "config.json"]),
    (["predict", "broken"], ["config.json", "not JSON"]),
    (["predict", "broken/config.json"], ["config.json", "not JSON"]),
    (["predict", "list"], ["list", "object"]),
    (["predict", "deep"], ["config.json", "not JSON"]),
    (["predict", "missing-key"], ["hidden_size"]),
    (["predict", "negative"], ["num_hidden_layers", "-1"]),
    (["predict", "text-sizes"], ["hidden_size", "'64'"]),
    (["predict", "alien"], ["no-such-family"]),
    (["predict", "tiny.yaml", "--batch", "-1"], ["batch", "-1", ">= 1"]),
    (["predict", "tiny.yaml", "--batch", "0"], ["batch", "0"]),
    (["predict", "tiny.yaml", "--batch", "1.5"], ["batch", "1.5"]),
    (["predict", "tiny.yaml", "--batch", "9" * 30], ["batch"]),
    (["predict", "tiny.yaml", "--seq", "9" * 5000], ["seq"]),
    (["predict", "tiny.yaml", "--rank", "0"], ["lora.rank", "0"]),
    (["predict", "tiny.yaml", "--dropout", "1"], ["lora.dropout", "1"]),
    (["predict", "tiny.yaml", "--dropout", ".nan"], ["lora.dropout", "nan"]),
    (["predict", "tiny.yaml", "--targets", "q_porj"], ["'q_porj'", "did you mean 'q_proj'?"]),
    (["predict", "tiny.yaml", "--targets", ""], ["--targets", "empty"]),
    (["predict", "tiny.yaml", "--quant", "nf5"], ["'nf5'", "did you mean 'nf4'?"]),
    (["predict", "tiny.yaml", "--method", "lora", "--double-quant"], ["double", "type"]),
    (["predict", "tiny.yaml", "--set", "quant.type=none"], ["qlora", "none"]),
    (["predict", "tiny.yaml", "--block-size", "63"], ["63", "64"]),
    (["predict", "llama-2-7b", "--block-size", "128"], ["128", "load: random"]),
    (["predict", "tiny.yaml", "--optimizer", "adam_8bit"], ["'adam_8bit'", "adamw_8bit"]),
    (["predict", "tiny.yaml", "--stack", "trainer"], ["'trainer'", "hf-trainer"]),
    (["predict", "tiny.yaml", "--upcast", "some"], ["'some'", "norms"]),
    (["predict", "tiny.yaml", "--attention", "spda"], ["'spda'", "did you mean 'sdpa'?"]),
    (["predict", "tiny.yaml", "--dtype", "bf16"], ["'bf16'", "bfloat16"]),
    (["predict", "tiny.yaml", "--checkpointing", "maybe"], ["'maybe'", "reentrant"]),
    (["predict", "tiny.yaml", "--gpu", "rtx9999"], ["'rtx9999'", "list gpus"]),
    (["predict", "tiny.yaml", "--budget", "24GB"], ["--budget", "'24GB'", "24GiB"]),
    (["predict", "tiny.yaml", "--budget", "lots"], ["--budget", "'lots'", "24GiB"]),
    (["predict", "tiny.yaml", "--budget", "24"], ["--budget", "'24'", "without a unit", "24GiB"]),
    (["predict", "tiny.yaml", "--optimizer", "adamw"], ["'adamw'", "did you mean 'adamw_torch'?"]),
    (["predict", "tiny.yaml", "--batch", "two"], ["batch", "'two'", "a whole number, got text"]),
    (["predict", "tiny.yaml", "--set", "quant.double=4"], ["quant.double", "true or false, got a whole number"]),
    (["predict", "tiny.yaml", "--budget", "-5GiB"], ["--budget", "'-5GiB'", "24GiB"]),
    (["plan", "tiny.yaml", "--seqs", "-5,64"], ["--seqs", "'-5,64'"]),
    (["predict", "tiny.yaml", "--budget", "0"], ["--budget", "'0'", "24GiB"]),
    (["predict", "tiny.yaml", "--budget", "24XiB"], ["'XiB'", "GiB"]),
    (["predict", "tiny.yaml", "--budget", "1e400"], ["--budget"]),
    (["predict", "tiny.yaml", "--reserve", "-1GiB"], ["--reserve"]),
    (["predict", "tiny.yaml", "--budget", "1GiB", "--device", "cpu"], ["--budget", "cpu"]),
    (["predict", "tiny.yaml", "--reserve", "1GiB"], ["--reserve", "--gpu"]),
    (["predict", "tiny.yaml", "--reserve", "30GiB", "--gpu", "rtx3090"], ["30.00 GiB", "rtx3090", "23.67 GiB"]),
    (["predict", "tiny.yaml", "--reserve", "1GiB", "--budget", "2GiB"], ["--budget", "--reserve"]),
    (["predict", "tiny.yaml", "--engine", "magic"], ["'magic'", "trace"]),
    (["predict", "tiny.yaml", "--device", "gpu"], ["'gpu'", "cuda, cpu"]),
    (["predict", "tiny.yaml", "--set", "rank"], ["'rank'", "key=value"]),
    (["predict", "tiny.yaml", "--set", "lora.rnak=8"], ["lora.rnak", "did you mean 'rank'?"]),
    (["predict", "tiny.yaml", "--set", "batch.size=8"], ["batch"]),
    (["predict", "tiny.yaml", "--set", "batch=[1"], ["batch", "YAML"]),
    (["predict", "tiny.yaml", "--set", "devices=4"], ["devices", "one"]),
    (["predict", "tiny.yaml", "--set", "matrix=5"], ["matrix"]),
    (
        ["predict", "tiny.yaml", "--set", "seq=64", "--seq", "32"],
        ["seq is given two values: --seq 32 and --set seq=64"],
    ),
    (["predict", "tiny.yaml", "--set", "seq=64", "--set", "seq=32"], ["--set seq=64 and --set seq=32", "leave out"]),
    (["predict", "tiny.yaml", "--no-clip", "--set", "stack.clip=true"], ["--no-clip and --set stack.clip=true"]),
    (["predict", "tiny.yaml", "--gpu", "t4", "--gpu", "rtx3090"], ["--gpu", "t4 and rtx3090", "`vramplan plan`"]),
    (["predict", "tiny.yaml", "--seq", "32", "--seq", "64"], ["--seq", "32 and 64", "matrix: {seq: [...]}"]),
    (["predict", "tiny.yaml", "--targets", "q_proj", "--targets", "v_proj"], ["q_proj and v_proj", "--targets A,B"]),
    (["predict", "tiny.yaml", "--engine", "analytic", "--engine", "trace"], ["--engine", "analytic and trace"]),
    (["measure", "tiny.yaml", "--steps", "0"], ["--steps", "'0'"]),
    (["measure", "tiny.yaml", "--timeout", "-5"], ["--timeout"]),
    (["measure", "matrix.yaml", "--out", "record.json"], ["record.json", "directory"]),
    (["measure", "tiny.yaml", "--out", "tiny.yaml/record.json"], ["--out", "tiny.yaml/record.json"]),
    (["measure", "tiny.yaml", "--out", "/proc/record.json"], ["--out", "/proc/record.json"]),
    (["compare", "tiny.yaml"], ["two sides", "compare A B"]),
    (["compare", "a", "b", "c"], ["two sides"]),
    (["compare", "tiny.yaml", "missing.json"], ["missing.json"]),
    (["compare", "tiny.yaml", "model/config.json", "--engines"], ["--engines", "one scenario"]),
    (["compare", "matrix.yaml", "record.json"], ["matrix", "one scenario"]),
    (["compare", "failed.json", "record.json"], ["no memory", "timeout"]),
    (["compare", "empty"], ["no record", "empty"]),
    (["compare", "record.json", "record.json", "--batch", "2"], ["'batch' cannot be set"]),
    (["compare", "record.json", "--batch", "2"], ["'batch' cannot be set", "own scenario"]),
    (["compare", "empty", "--seq", "64"], ["'seq' cannot be set"]),
    (["compare", "tiny.yaml", "record.json", "--json", "--markdown"], ["--markdown", "--json"]),
    (["list", "moduls"], ["'moduls'", "did you mean 'models'?"]),
    (["list", "models", "zzz"], ["'zzz'", "list models"]),
    (["completion", "tcsh"], ["'tcsh'", "bash"]),
]


@pytest.mark.parametrize(
    ("argv", "words"), BAD_ARGUMENTS, ids=[" ".join(a)[:50] or "nothing" for a, _ in BAD_ARGUMENTS]
)
def test_bad_arguments_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]
) -> None:
    assert_refused(run(capsys, *argv), words)


def assert_refused(result: tuple[int, str, str], words: list[str]) -> None:
    """Exit code 2, nothing on stdout, an error line and a hint line that hold the words."""
    code, out, err = result
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert "\nhint:  " in err
    assert "Traceback" not in err
    assert [word for word in words if word not in err] == []


#: Scenario files that are wrong.
BAD_FILES: list[tuple[str, list[str]]] = [
    ("", ["holds nothing"]),
    ("just text", ["holds text"]),
    ("model: [", ["not YAML", "line 1, column 9"]),
    ("a: b: c", ["not YAML"]),
    ("- model: llama-2-7b", ["list"]),
    ("batch: 2", ["no model"]),
    ("model: llama-2-7b\nbathc: 2", ["'bathc'", "did you mean 'batch'?"]),
    ("model: llama-2-7b\nbatch: 1\nbatch: 2", ["line 3, column 1", "batch", "twice"]),
    ("model: 7", ["model", "7"]),
    ("model: {}", ["model"]),
    ("model: llama-2-7b\nbatch: true", ["batch", "true"]),
    ("model: llama-2-7b\nseq: null", ["seq", "null"]),
    ("model: llama-2-7b\nquant: nf4", ["quant", "'nf4'"]),
    ("model: llama-2-7b\nquant: {type: none, double: true}", ["none"]),
    ("model: llama-2-7b\nquant: {type: int8, double: true}", ["double", "int8"]),
    ("model: llama-2-7b\nquant: {double: 24GB}", ["quant.double", "24GB"]),
    ("model: llama-2-7b\nlora: {targets: []}", ["lora.targets"]),
    ("model: llama-2-7b\nlora: {targets: [all-linear, q_proj]}", ["all-linear"]),
    ("model: llama-2-7b\nstack: {base: scirpt}", ["stack.base", "did you mean 'script'?"]),
    ("model: llama-2-7b\nstack: {autocast: int8}", ["stack.autocast", "int8"]),
    ("model: llama-2-7b\nmethod: QLORA", ["method", "did you mean 'qlora'?"]),
    ("model: llama-2-7b\ngpu: rtx3091", ["rtx3091", "did you mean 'rtx3090'?"]),
    ("model: llama-2-7b\nmatrix: {seq: 512}", ["matrix"]),
    ("model: llama-2-7b\nmatrix: {seq: []}", ["matrix"]),
    ("model: llama-2-7b\nmatrix: {sqe: [512]}", ["'sqe'", "did you mean 'seq'?"]),
    ("model: llama-2-7b\nmatrix: {" + ", ".join(f"k{i}: [1, 2]" for i in range(20)) + "}", ["1,048,576"]),
    ("model: llama-2-7b\ndeepspeed: zero3", ["deepspeed", "one"]),
    ("model: ../elsewhere", ["elsewhere"]),
    ("? {a: 1}\n: 2", ["not YAML"]),
    ("x: &a [*a]", ["recursive"]),
    ("[" * 2000, ["not YAML"]),
    ("model: llama-2-7b\n5: 6", ["'5'"]),
    ("\x00", ["not YAML"]),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES, ids=[repr(text[:40]) for text, _ in BAD_FILES])
def test_bad_scenario_files_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str]
) -> None:
    (here / "bad.yaml").write_text(text)
    assert_refused(run(capsys, "predict", "bad.yaml"), words)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc"])
def test_bytes_that_are_not_text_are_refused(here: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (here / "bad.yaml").write_bytes(content)
    assert_refused(run(capsys, "predict", "bad.yaml"), ["bad.yaml"])
    (here / "empty" / "config.json").write_bytes(content)
    assert_refused(run(capsys, "predict", "empty"), ["config.json"])
    (here / "bad.json").write_bytes(content)
    assert_refused(run(capsys, "compare", "tiny.yaml", "bad.json"), ["bad.json"])


@pytest.mark.parametrize(
    "body", ["{", "[]", "[" * 100_000, "{}", '{"schema": 9}', '{"schema": 1, "kind": "measurement"}', "null"]
)
def test_bad_records_are_refused(here: Path, capsys: pytest.CaptureFixture[str], body: str) -> None:
    (here / "bad.json").write_text(body)
    assert_refused(run(capsys, "compare", "tiny.yaml", "bad.json"), ["bad.json"])


@pytest.mark.parametrize("argv", [["predict", "tiny.yaml", "--rank", "0"], ["predict", "broken"], ["lits"]])
def test_bad_input_from_a_shell(here: Path, argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vramplan", *argv], capture_output=True, text=True, check=False, env=ENV
    )
    assert_refused((done.returncode, done.stdout, done.stderr), [])


@pytest.mark.parametrize("command", [None, *(command.name for command in all_commands())])
def test_every_help_has_an_example_that_parses(
    here: Path, capsys: pytest.CaptureFixture[str], command: str | None
) -> None:
    code, out, err = run(capsys, *([command] if command else []), "--help")
    assert (code, err) == (0, "")
    examples = [line.strip() for line in out.splitlines() if line.startswith("  vramplan ")]
    assert examples or command == "completion"
    for example in examples:
        build_parser(all_commands()).parse_args(example.split("#")[0].split(">")[0].split()[1:])


def test_a_command_is_called_like_its_module() -> None:
    assert [commands_for(command.name) for command in all_commands()] == [(command,) for command in all_commands()]
    assert commands_for("flags") == commands_for("nonsense") == all_commands()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"vramplan {vramplan.__version__}\n", "")


def test_every_key_of_the_file_has_a_flag() -> None:
    from vramplan.commands.flags import FLAGS

    keys = {field.name for field in msgspec.structs.fields(ScenarioKeys)} - {"model", "matrix", *SECTIONS}
    for section, content in SECTIONS.items():
        keys |= {f"{section}.{field.name}" for field in msgspec.structs.fields(content)}
    assert keys - {flag.key for flag in FLAGS} == {"stack.base"}  # which is what `--stack` sets
    assert {flag.key for flag in FLAGS} - keys == {"stack"}


def test_flags_reach_the_scenario(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--batch 2 --seq 32 --rank 2 --targets q_proj,v_proj --dropout 0.1 --no-double-quant --optimizer sgd"
    more = (
        "--stack script --upcast none --checkpointing false --gpu RTX-3090 --set lora.dtype=bfloat16 --block-size 128"
        " --set seq=32"  # said twice, and the same
    )
    code, out, _ = run(capsys, "predict", "tiny.yaml", "--json", *flags.split(), *more.split())
    scenario = json.loads(out)["scenario"]
    assert code == 0
    assert (scenario["batch"], scenario["seq"], scenario["optimizer"]) == (2, 32, "sgd")
    assert scenario["lora"] == {"rank": 2, "targets": ["q_proj", "v_proj"], "dropout": 0.1, "dtype": "bfloat16"}
    assert (scenario["quant"]["double"], scenario["quant"]["block_size"]) == (False, 128)
    assert (scenario["stack"]["base"], scenario["stack"]["upcast"]) == ("script", "none")
    assert (scenario["checkpointing"], scenario["gpu"]) == (False, "rtx3090")


@pytest.mark.parametrize("words", [["--torch", "2.10"], ["--set", "torch=2.10"]])
def test_a_release_is_no_number(here: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["predict", "tiny.yaml", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"]["torch"] == "2.10"


def test_the_printed_scenario_reproduces_the_prediction(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _ = run(capsys, "predict", "model", "--json", "--seq", "64", "--set", "load=random", "--gpu", "t4")
    body = json.loads(first)
    (here / "again.yaml").write_text(json.dumps(body["scenario"]))
    _, second, _ = run(capsys, "predict", "again.yaml", "--json")
    assert json.loads(second) == body


def test_a_matrix_is_a_table_or_an_array(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "predict", "matrix.yaml", "--json")
    assert (code, [body["scenario"]["seq"] for body in json.loads(out)]) == (0, [16, 32])
    _, out, _ = run(capsys, "predict", "matrix.yaml", "--json", "--seq", "64")
    assert [body["scenario"]["seq"] for body in json.loads(out)] == [64]
    code, out, _ = run(capsys, "predict", "matrix.yaml", "--gpu", "t4")
    assert (code, out.splitlines()[-1]) == (0, "2 of 2 fit")


def test_a_matrix_of_which_flags_leave_one_is_one_scenario(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "two.yaml").write_text(json.dumps(json.loads(TINY) | {"matrix": {"batch": [1, 2], "lora.rank": [4, 8]}}))
    (here / "one.yaml").write_text(json.dumps(json.loads(TINY) | {"name": "two", "lora": {"rank": 8}}))
    (here / "train.log").write_text(V29)
    flags = ["--batch", "1", "--rank", "8"]
    for argv in (["inspect"], ["compare", "tiny.yaml"], ["explain-oom", "train.log", "--scenario"], ["predict"]):
        found = run(capsys, *argv, "two.yaml", *flags)
        assert (found[1] != "", found[2]) == (True, "")
        assert found == run(capsys, *argv, "one.yaml", *flags)
    explained = [run(capsys, "predict", name, *flags, "--explain")[1] for name in ("two.yaml", "one.yaml")]
    assert explained[0] == explained[1]
    body = json.loads(run(capsys, "predict", "two.yaml", *flags, "--explain", "--json")[1])
    assert [part["scenario"]["name"] for part in body] == ["two"]  # a list, as of every matrix
    assert body[0]["explain"]
    assert vramplan.Scenario.load("two.yaml", batch=1, **{"lora.rank": 8}) == vramplan.Scenario.load("one.yaml")


def test_the_answer_no_is_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "tiny.yaml", "--budget", "1MiB")
    assert (code, err) == (1, "")
    assert out.splitlines()[-1].startswith("does not fit: ")
    code, out, _ = run(capsys, "predict", "tiny.yaml", "--budget", "80GiB")
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "fits")


def test_compare_takes_records_predictions_and_scenarios(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", "prediction.json", "record.json")
    assert (code, out.splitlines()[-1]) == (
        0,
        "peak: predicted 5.88 GiB in backward, measured 5.97 GiB in backward: -1.63%",
    )
    _, out, _ = run(capsys, "compare", "tiny.yaml", "record.json", "--json")
    body = json.loads(out)
    assert (body["a"]["kind"], body["a"]["device"], body["reference"]) == ("prediction", "cpu", "b")
    _, out, _ = run(
        capsys, "compare", "tiny.yaml", "matrix.yaml", "--seq", "16", "--set", "matrix={seq: [16]}", "--json"
    )
    _, out, _ = run(capsys, "compare", "tiny.yaml", "tiny.yaml", "--device", "cpu", "--markdown")
    assert out.startswith("| phase | component |")


def test_a_record_alone_is_compared_with_its_own_scenario(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", "record.json", "--json")
    assert (code, json.loads(out)["b"]["kind"]) == (0, "measurement")
    own = load_result(here / "record.json").scenario.to_mapping()
    (here / "own.json").write_text(json.dumps(own), encoding="utf-8")
    assert run(capsys, "compare", "own.json", "record.json", "--json")[1] == out


def test_compare_of_a_directory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", ".")
    assert (code, out.splitlines()[0].split()[0]) == (0, "record")
    assert out.splitlines()[-1].startswith("allocated: mean error ")


def test_compare_takes_a_home_and_a_suffix_in_capitals(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "runs").mkdir()
    (here / "record.json").rename(here / "runs" / "record.json")
    (here / "prediction.json").rename(here / "PREDICTION.JSON")
    code, out, _ = run(capsys, "compare", "~/runs")
    assert (code, out.splitlines()[-1].split(":")[0]) == (0, "allocated")
    code, out, _ = run(capsys, "compare", "PREDICTION.JSON", "runs/record.json")
    assert (code, out.splitlines()[-1].split(",")[0]) == (0, "peak: predicted 5.88 GiB in backward")


def test_lists(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "models", "llama-2-7b")
    assert (code, out.split()) == (0, ["name", "parameters", "family", "llama-2-7b", "6,738,415,616", "llama"])
    _, out, _ = run(capsys, "list", "stacks", "--json")
    assert [row["name"] for row in json.loads(out)] == ["hf-trainer", "trl", "trl-dpo", "script"]
    assert json.loads(out)[0] == {
        "name": "hf-trainer", "upcast": "all", "autocast": True, "outputs": "freed", "loss": "torch", "clip": True
    }  # fmt: skip
    _, out, _ = run(capsys, "list", "optimizers", "adamw_8bit")
    # two states of a byte, and of each a 4-byte scale for 256 of them: 2 + 2 x 4 / 256 = 2.03
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["adamw_8bit", "2.03", "card"],
        ["paged_adamw_8bit", "2.03", "paged"],
    ]
    (here / "scenarios").mkdir()
    (here / "scenarios" / "mine.yaml").write_text("model: llama-2-7b\n")
    (here / "scenarios" / "broken.yaml").write_text("model: [")
    _, out, _ = run(capsys, "list", "scenarios", "mine")
    assert out.split() == ["name", "model", "file", "mine", "llama-2-7b", "scenarios/mine.yaml"]
    _, out, _ = run(capsys, "list", "gpus", "rtx3090")
    assert [line.split() for line in out.splitlines()[:2]] == [
        ["name", "GiB", "compute", "capability"],
        ["rtx3090", "23.67", "8.6"],
    ]


def test_numbers_of_lists_are_numbers_in_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(kind: str, word: str) -> Any:
        return json.loads(run(capsys, "list", kind, word, "--json")[1])[0]

    assert listed("models", "llama-2-7b") == {"name": "llama-2-7b", "parameters": 6_738_415_616, "family": "llama"}
    kept = {"name": "adamw_8bit", "state bytes per fp32 parameter": 2 + 2 * 4 / 256, "where": "card"}
    assert listed("optimizers", "adamw_8bit") == kept
    card = listed("gpus", "rtx3090")
    assert card["bytes"] == gpu("rtx3090").capacity
    assert (card["GiB"], card["compute capability"]) == (card["bytes"] / 2**30, "8.6")


def test_the_schema_accepts_what_the_file_has(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema")
    assert code == 0
    definitions = json.loads(out)["$defs"]
    assert set(definitions["ScenarioKeys"]["properties"]) >= {"model", "quant", "matrix"}
    structs = [ScenarioKeys, *SECTIONS.values()]
    properties = {name: definitions[name]["properties"] for name in (struct.__name__ for struct in structs)}
    bare = [(name, key) for name, keys in properties.items() for key in keys if "description" not in keys[key]]
    assert {key for _, key in bare} == SECTIONS.keys() - {"stack"}  # which their definitions describe as a whole


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_words(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    assert all(word in out for word in ("predict", "grad-accum", "paged_adamw_8bit", "norms"))


@pytest.mark.parametrize(
    "argument",
    ["predict_pos_0", "report_pos_0", "report___html", "history_pos_0", "check___against", "calibrate___from_records"],
)
def test_completion_offers_files(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "completion", "bash")
    assert f"_shtab_vramplan_{argument}_COMPGEN=_shtab_compgen_files\n" in out


def test_every_argument_that_is_a_file_or_directory_is_known_as_one() -> None:
    parser = ArgumentParser(conflict_handler="resolve")
    for command in all_commands():
        command.configure(parser)
    named = [action for action in parser._actions if action.metavar in ("FILE", "DIR", "FILE|DIR", "TARGET")]
    assert len(named) > 20
    assert [action.dest for action in named if not takes_path(action)] == []


def test_a_bug_is_exit_code_4_with_a_traceback(capsys: pytest.CaptureFixture[str], broken_doctor: None) -> None:
    code, out, err = run(capsys, "doctor")
    assert (code, out) == (4, "")
    assert "Traceback" in err
    assert err.splitlines()[-1] == "error: this is a bug in vramplan: please report the lines above"


@pytest.fixture
def broken_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard function that the doctor calls, failing in a way that nobody foresaw."""

    def fail() -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("platform.python_version", fail)


def test_an_interruption_is_exit_code_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("platform.python_version", interrupt)
    assert run(capsys, "doctor") == (130, "", "interrupted\n")


def test_a_reader_that_stops_early_is_no_error(here: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m vramplan list models | true; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False, env=ENV,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")


def _on_a_terminal(argv: list[str], env: dict[str, str], columns: int) -> str:
    """What a command writes to a terminal so many columns wide."""
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen([sys.executable, "-m", "vramplan", *argv], stdout=there, env=env) as child:
        os.close(there)
        written = b""
        while True:
            try:
                part = os.read(here, 4096)
            except OSError:  # Linux ends a terminal whose other side is closed like this
                part = b""
            if not part:
                break
            written += part
    os.close(here)
    assert child.returncode == 0
    return written.decode()


@pytest.mark.parametrize("columns", [60, 100])
def test_on_a_terminal_the_answer_has_its_width_and_colours(here: Path, columns: int) -> None:
    env = {key: value for key, value in ENV.items() if key not in ("NO_COLOR", "COLUMNS")} | {"TERM": "xterm"}
    coloured = _on_a_terminal(["predict", "tiny.yaml"], env, columns)
    plain = _on_a_terminal(["predict", "tiny.yaml"], env | {"NO_COLOR": "1"}, columns)
    assert "\x1b[1m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    assert max(map(len, plain.splitlines())) <= columns


def test_a_full_disk_is_said_and_a_closed_stdout_is_not(here: Path) -> None:
    command = f"{sys.executable} -m vramplan predict tiny.yaml --budget 1MiB"
    for redirection, code, first in ((">/dev/full", 3, "error: cannot write the answer"), (">&-", 1, "")):
        line = f"{command} {redirection}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, env=ENV)
        assert (done.returncode, done.stderr[: len("error: cannot write the answer")]) == (code, first)
        assert "Traceback" not in done.stderr


def test_a_terminal_without_unicode_gets_an_answer(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vramplan", "predict", "tiny.yaml"],
        capture_output=True, check=False, env=ENV | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"%  ####" in done.stdout
    assert b"?" not in done.stdout


@pytest.mark.parametrize(("first", "then"), [("vramplan.predict.engine", "predict"), ("vramplan.compare", "compare")])
def test_functions_are_found_behind_packages_of_the_same_name(first: str, then: str) -> None:
    program = f"import vramplan, {first}; assert vramplan.{then}.__module__ == 'vramplan.api', vramplan.{then}"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, env=ENV)


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import vramplan, sys; print([m for m in sys.modules if m.startswith('vramplan.')])"
    done = subprocess.run([sys.executable, "-c", program], check=True, env=ENV, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def bare(here: Path) -> dict[str, str]:
    """The environment of an installation without extras: only what `pip install .` brings."""
    site = here / "site"
    site.mkdir()
    for module in (msgspec, yaml):
        source = Path(str(module.__file__)).parent
        (site / source.name).symlink_to(source)
    return ENV | {"PYTHONPATH": f"{site}:{ENV['PYTHONPATH']}"}


@pytest.mark.parametrize(
    "argv",
    [["measure", "tiny.yaml"], ["predict", "tiny.yaml", "--engine", "trace"], ["compare", "tiny.yaml", "--engines"]],
)
def test_without_the_extra_what_needs_it_says_so(bare: dict[str, str], argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "vramplan", *argv], capture_output=True, text=True, check=False, env=bare
    )
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert "hint:  pip install 'vramplan[measure]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_extras_the_rest_works(bare: dict[str, str]) -> None:
    for argv in (["predict", "tiny.yaml"], ["compare", "tiny.yaml", "record.json"], ["list", "models"], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-S", "-m", "vramplan", *argv], capture_output=True, text=True, check=False, env=bare
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_measurement_is_written_and_compares(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "measure", "tiny.yaml", "--steps", "1", "--out", "records", "--json")
    assert (code, err.splitlines()[-1]) == (0, "wrote records/tiny.json")
    record = json.loads((here / "records" / "tiny.json").read_text())
    assert json.loads(out) == record
    assert (record["kind"], record["outcome"], record["environment"]["device"]) == ("measurement", "ok", "cpu")
    code, out, _ = run(capsys, "compare", "tiny.yaml", "records/tiny.json", "--json")
    comparison = json.loads(out)
    assert comparison["b"]["peak"]["allocated"] == record["peak"]["allocated"]
    assert comparison["notes"] == []
    weights = [entry for entry in comparison["entries"] if entry["component"] == "weights" and entry["phase"] == "step"]
    assert [entry["difference"] for entry in weights] == [0]


def test_an_interrupted_measurement_leaves_nothing(here: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "vramplan", "measure", "tiny.yaml", "--out", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENV,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "measuring tiny on cpu ...\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert not (here / "out").exists()


def test_measuring_on_a_gpu_without_one_cannot_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if diagnose().gpus:
        pytest.skip("this machine has a GPU")
    code, out, err = run(capsys, "measure", "tiny.yaml", "--device", "cuda")
    assert (code, out) == (3, ""), err
    assert err.splitlines()[-1].startswith("hint:  ")


def test_the_largest_numbers_that_are_accepted_are_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    most = str(2**24)
    for flags in ([], ["--attention", "eager", "--checkpointing", "false"]):
        code, out, err = run(capsys, "predict", "llama-3.1-405b", "--batch", most, "--seq", most, "--gpu", "t4", *flags)
        assert (code, out.splitlines()[-1].partition(":")[0], err) == (1, "does not fit", "")


def test_where_records_go(here: Path) -> None:
    from vramplan.commands.measure import record_files

    assert record_files(None, ["a", "b"]) == [None, None]
    assert record_files(Path("x.json"), ["a"]) == [Path("x.json")]
    assert record_files(Path("new"), ["a"]) == [Path("new/a.json")]
    assert record_files(Path("new"), ["a/b", "c"]) == [Path("new/a-b.json"), Path("new/c.json")]
    with pytest.raises(UsageError, match="same name"):
        record_files(Path("new"), ["a", "a"])


def test_what_may_not_be_read_is_said_and_a_name_needs_none_of_it(tmp_path: Path) -> None:
    """Root reads everything, so it gives up its capabilities."""
    command = [sys.executable, "-m", "vramplan"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root, and nothing to give up its rights with")
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() == 0:
        os.chown(closed, 65534, 65534)
    closed.chmod(0o700 if os.geteuid() == 0 else 0)
    for words in (["predict", "closed"], ["plan", "closed", "--gpu", "t4"], ["compare", "closed", "tiny.yaml"]):
        done = subprocess.run([*command, *words], cwd=tmp_path, env=ENV, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: cannot read closed/")
        assert "Permission denied" in done.stderr
    closed.chmod(0o700)
