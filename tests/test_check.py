"""The gate bites: faults put into results on purpose, each with its exit code and its culprit."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_samples import CUDA, UPGRADED, changed, grown, items, named, save_sides, with_entries
from samples import FAILED, ON_CPU, PREDICTION, RECORD

from vramplan.check import Status, check
from vramplan.cli import main
from vramplan.errors import UsageError
from vramplan.ledger import Component, Ledger, Phase
from vramplan.record import Fit, Outcome, Record, save_result
from vramplan.units import MIB

#: Fault, exit code, words of the answer's last line (what is to blame).
FAULTS: list[tuple[str, Record, int, list[str]]] = [
    (
        "1 % more in one phase that is not the peak's",  # forward holds 5,258 MiB: 53 MiB are 1.01 % of it
        grown(CUDA, Phase.FORWARD, Component.ACTIVATIONS, 53 * MIB),
        1,
        ["activations in forward", "+53.00 MiB", "no version changed"],
    ),
    (
        "the peak grows after an upgrade",
        replace(grown(CUDA, Phase.BACKWARD, Component.LOGITS, 100 * MIB), libraries=UPGRADED),
        1,
        ["logits in backward", "+100.00 MiB", "peft 0.21.2 -> 0.22.0"],
    ),
    (
        "norms, embeddings and head are upcast, though the scenario says what it said",
        with_entries(CUDA, lambda e: e.bytes * (2 if e.component is Component.UNQUANTIZED else 1)),
        1,
        ["unquantized in", "+1.00 GiB"],
    ),
    (
        "a component is dropped",
        with_entries(CUDA, lambda e: 0 if e.component is Component.OPTIMIZER else e.bytes),
        1,
        ["optimizer in forward -304.00 MiB"],
    ),
    (
        "a component is dropped from one phase",
        with_entries(CUDA, lambda e: 0 if (e.component, e.phase) == (Component.QUANT_STATE, Phase.STEP) else e.bytes),
        1,
        ["quant-state in step -96.00 MiB"],
    ),
    (
        "a phase is dropped",
        with_entries(CUDA, lambda e: 0 if e.phase is Phase.LOSS else e.bytes),
        1,
        ["the phase loss is gone"],
    ),
    (
        "the run ends out of memory",
        replace(CUDA, outcome=Outcome.OOM, ledger=Ledger((), 0), reserved={}, note="tried to allocate 2 GiB"),
        1,
        ["outcome ok -> oom: tried to allocate 2 GiB"],
    ),
    (
        "the run ends out of memory with a ledger",
        replace(grown(CUDA, Phase.LOSS, Component.LOGITS, 900 * MIB), outcome=Outcome.OOM),
        1,
        ["outcome ok -> oom", "logits in loss +900.00 MiB"],
    ),
    ("all entries are gone", replace(CUDA, ledger=Ledger((), 0)), 1, ["all entries are gone"]),
    (
        "between steps something stays",
        replace(CUDA, ledger=Ledger(CUDA.ledger.entries, CUDA.ledger.steady + 50 * MIB)),
        1,
        ["steady", "+50.00 MiB"],
    ),
    (
        "the allocator fragments",
        replace(CUDA, reserved={phase: size + 512 * MIB for phase, size in CUDA.reserved.items()}),
        1,
        ["reserved", "+512.00 MiB"],
    ),
    (
        "a counter is gone from a phase",
        replace(CUDA, reserved={p: size for p, size in CUDA.reserved.items() if p is not Phase.LOSS}),
        1,
        ["reserved is gone from loss"],
    ),
    ("nothing is left between steps", replace(CUDA, ledger=Ledger(CUDA.ledger.entries, 0)), 1, ["steady is gone"]),
    ("the allocator's counters are gone", replace(CUDA, reserved={}), 1, ["reserved is gone"]),
    ("only a version changed", replace(CUDA, libraries=UPGRADED), 0, ["ok: 1 result"]),
    ("upcast flipped", changed(CUDA, stack={"base": "hf-trainer", "upcast": "none"}), 2, ["not comparable: 1 of 1"]),
    ("another card", replace(CUDA, environment={"gpu": "L4"}), 2, ["not comparable: 1 of 1"]),
    ("memory saved", grown(CUDA, Phase.BACKWARD, Component.LOGITS, -100 * MIB), 0, ["ok: 1 result"]),
    ("nothing", CUDA, 0, ["ok: 1 result"]),
]


@pytest.mark.parametrize(("fault", "code", "words"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_has_its_exit_code_and_its_culprit(
    fault: Record,
    code: int,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    new, baseline = save_sides(tmp_path, [fault], [CUDA])
    assert main(["check", new, "--against", baseline]) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert [word for word in words if word not in last] == []


def test_what_is_not_comparable_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, baseline = save_sides(tmp_path, [changed(CUDA, batch=8)], [CUDA])
    assert main(["check", new, "--against", baseline, "--json"]) == 2
    case = json.loads(capsys.readouterr().out)["cases"][0]
    assert case["status"] == "not comparable"
    assert case["different_fields"] == [{"what": "batch", "before": "4", "after": "8"}]


def test_a_regression_beside_something_incomparable_is_a_regression() -> None:
    old = [named(CUDA, "one"), named(CUDA, "two")]
    new = [changed(old[0], batch=8), grown(old[1], Phase.BACKWARD, Component.LOGITS, 100 * MIB)]
    done = check(items(new), items(old))
    assert (done.code, [case.status for case in done.cases]) == (1, [Status.REGRESSED, Status.INCOMPARABLE])


def test_a_vanished_scenario_is_a_regression_unless_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, baseline = save_sides(tmp_path, [CUDA], [CUDA, named(CUDA, "gone")])
    assert main(["check", new, "--against", baseline]) == 1
    assert "gone (measured, cuda): vanished: in the baseline, not among" in capsys.readouterr().out
    assert main(["check", new, "--against", baseline, "--allow-vanished"]) == 0
    assert "vanished: gone (measured, cuda)" in capsys.readouterr().out


def test_a_new_scenario_is_fine_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = replace(named(CUDA, "fresh"), outcome=Outcome.OOM)
    new, baseline = save_sides(tmp_path, [CUDA, fresh], [CUDA])
    assert main(["check", new, "--against", baseline]) == 0
    assert "new: fresh (measured, cuda)\n  not in the baseline: oom\n" in capsys.readouterr().out


def test_a_gate_that_compares_nothing_is_refused() -> None:
    other = items([named(CUDA, "other")])
    assert check(other, items([CUDA])).code == 1  # vanished
    with pytest.raises(UsageError, match="nothing to compare"):
        check(other, items([CUDA]), allow_vanished=True)


def test_a_baseline_of_another_engine_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        save_result(replace(PREDICTION, scenario=named(CUDA, name).scenario), tmp_path / "old" / f"{name}.json")
    argv = ["check", "llama-2-7b", "--against", str(tmp_path / "old"), "--allow-vanished"]
    assert main([*argv, "--engine", "trace"]) == 2
    assert capsys.readouterr().err == (
        f"error: nothing to compare: --against {tmp_path / 'old'} holds 2 results, and none of engine trace\n"
        "hint:  it holds analytic on cuda; --engine and --device choose what is predicted, --update writes a baseline"
        " of it\n"
    )
    assert main([*argv, "--device", "cpu"]) == 2
    assert "none of engine analytic on cpu" in capsys.readouterr().err


def test_the_same_scenario_on_another_engine_or_device_is_another_case() -> None:
    done = check(items([CUDA, RECORD, PREDICTION]), items([PREDICTION, CUDA, RECORD]))
    assert [(case.key.engine, case.key.device) for case in done.cases] == [
        ("analytic", "cuda"),
        ("measure", "cpu"),
        ("measure", "cuda"),
    ]
    assert done.passed


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing", lambda file: file.unlink(), "does not exist"),
    ("empty file", lambda file: file.write_text(""), "is not JSON"),
    ("empty array", lambda file: file.write_text("[]"), "holds no record"),
    ("truncated", lambda file: file.write_text(file.read_text()[:700]), "is not JSON"),
    ("a number", lambda file: file.write_text("7"), "not a record or prediction: int"),
    ("not text", lambda file: file.write_bytes(b"\xff\xfe\x00"), "is not UTF-8 text"),
    ("another object", lambda file: file.write_text('{"kind": "comparison"}'), "not a record or prediction"),
    ("another schema", lambda file: edit(file, lambda body: body.update(schema=2)), "schema 2 is unknown"),
    ("no entries", lambda file: edit(file, lambda body: body.pop("entries")), "missing required field 'entries'"),
    (
        "bytes as text",
        lambda file: edit(file, lambda b: b["entries"][0].update(bytes="1 GiB")),
        "got 'str' - at '$.entries[0].bytes'",
    ),
    (
        "negative",
        lambda file: edit(file, lambda b: b["entries"][0].update(bytes=-1)),
        "holds -1 bytes",
    ),
    (
        "versions",
        lambda file: edit(file, lambda body: body.update(libraries={"torch": 2})),
        "got 'int' - at '$.libraries[...]'",
    ),
    (
        "engine",
        lambda file: edit(file, lambda body: body.update(engine=["trace"])),
        "expected 'str', got 'array' - at '$.engine'",
    ),
    (
        "environment",
        lambda file: edit(file, lambda body: body.update(environment=[])),
        "got 'array' - at '$.environment'",
    ),
]


def test_a_baseline_that_is_not_there_yet_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_result(CUDA, tmp_path / "new.json")
    assert main(["check", str(tmp_path / "new.json"), "--against", str(tmp_path / "baseline")]) == 2
    assert "hint:  the same command with --update writes it" in capsys.readouterr().err


def edit(file: Path, change: Callable[[Any], object]) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


@pytest.mark.parametrize(("fault", "words"), [f[1:] for f in BROKEN], ids=[f[0] for f in BROKEN])
@pytest.mark.parametrize("side", ["new", "baseline"])
def test_a_broken_file_is_named(
    side: str, fault: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("new", "baseline")}
    for file in files.values():
        save_result(CUDA, file)
    fault(files[side])
    assert main(["check", str(files["new"]), "--against", str(files["baseline"])]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"{side}.json" in output.err
    assert words in output.err


def test_an_empty_directory_is_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_result(CUDA, tmp_path / "new.json")
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / "new.json"), "--against", str(tmp_path / "empty")]) == 2
    assert "holds no record" in capsys.readouterr().err


def test_two_results_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, baseline = save_sides(tmp_path, [CUDA, CUDA], [CUDA])
    assert main(["check", new, "--against", baseline]) == 2
    error = capsys.readouterr().err
    assert "new results: guanaco (measured, cuda) is there twice" in error
    assert "0.json" in error
    assert "1.json" in error


def test_totals_changed_by_hand_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    for file in (old, new):
        save_result(CUDA, file)
    edit(new, lambda body: body["phases"]["loss"].update(allocated=1))
    assert main(["check", str(new), "--against", str(old)]) == 1
    assert "contradicts itself: loss: the entries' allocated is 6197084160, not 1" in capsys.readouterr().out
    assert main(["check", str(old), "--against", str(new)]) == 2
    assert "baseline" in capsys.readouterr().err


def test_a_run_that_works_again_is_an_improvement() -> None:
    broken = replace(RECORD, outcome=Outcome.OOM, ledger=Ledger((), 0))
    assert check(items([RECORD]), items([broken])).cases[0].status is Status.IMPROVED
    assert check(items([broken]), items([broken])).cases[0].status is Status.EQUAL
    assert check(items([FAILED]), items([broken])).code == 1  # another failure is no better


def test_a_verdict_that_turns_is_an_outcome() -> None:
    assert PREDICTION.verdict
    worse = replace(PREDICTION, verdict=replace(PREDICTION.verdict, word=Fit.NO, margin=-MIB))
    done = check(items([worse]), items([PREDICTION]))
    assert [finding.text for finding in done.cases[0].findings] == ["outcome fits -> does not fit: 1.00 MiB too much"]
    lost = check(items([replace(PREDICTION, verdict=None)]), items([PREDICTION]))
    assert [finding.subject for finding in lost.cases[0].findings] == ["verdict"]


def test_a_scenario_is_predicted_and_held_to_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "mine.yaml"
    model = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model |= {"num_attention_heads": 4, "vocab_size": 256, "_name_or_path": "mine"}
    baseline = str(tmp_path / "baseline")

    def gate(layers: int, *flags: str) -> int:
        scenario.write_text(json.dumps({"model": model | {"num_hidden_layers": layers}, "seq": 64}))
        return main(["check", str(scenario), "--against", baseline, *flags])

    assert gate(2) == 2  # no baseline yet
    assert gate(2, "--update", "--device", "cpu") == 0
    assert gate(2, "--update", "--device", "cuda") == 0
    assert sorted(file.name for file in (tmp_path / "baseline").iterdir()) == ["mine-analytic-cuda.json", "mine.json"]
    capsys.readouterr()
    assert gate(2) == 0
    assert "ok: 2 results" in capsys.readouterr().out
    assert gate(3) == 1
    out = capsys.readouterr().out
    assert out.count("regressed: mine") == 2
    assert "model.num_hidden_layers 2 -> 3" in out.splitlines()[-1]
    assert gate(2, "--batch", "2", "--device", "cpu") == 2
    assert "different: batch 1 -> 2" in capsys.readouterr().out


def test_flags_of_a_scenario_do_not_go_with_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, baseline = save_sides(tmp_path, [CUDA], [CUDA])
    assert main(["check", new, "--against", baseline, "--batch", "2"]) == 2
    assert "batch" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "markdown", "json", "github", "junit"])
def test_every_format_has_the_same_exit_code_and_names_the_culprit(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = replace(grown(CUDA, Phase.BACKWARD, Component.LOGITS, 100 * MIB), libraries=UPGRADED)
    new, baseline = save_sides(tmp_path, [fault], [CUDA])
    assert main(["check", new, "--against", baseline, "--format", form]) == 1
    out = capsys.readouterr().out
    assert "logits" in out
    assert "0.22.0" in out
    if form == "json":
        body = json.loads(out)
        assert (body["kind"], body["passed"], body["exit_code"]) == ("check", False, 1)
        assert body["cases"][0]["findings"][0]["culprit"]["component"] == "logits"
    if form == "junit":
        assert ET.fromstring(out).attrib == {"tests": "1", "failures": "1", "errors": "0"}


def test_a_record_of_the_cpu_and_one_prediction_compare_with_themselves() -> None:
    assert check(items([ON_CPU, RECORD]), items([ON_CPU, RECORD])).passed
