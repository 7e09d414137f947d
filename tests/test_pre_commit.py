"""What pre-commit runs: the hooks' own entries, taken from .pre-commit-hooks.yaml, on files as it would pass them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_models import LLAMA

from vramplan.cli import main

FILE = Path(__file__).parent.parent / ".pre-commit-hooks.yaml"
HOOKS = {hook["id"]: hook for hook in yaml.safe_load(FILE.read_text(encoding="utf-8"))}


def hook(name: str, folder: Path, *files: str, args: list[str] | None = None) -> "subprocess.CompletedProcess[str]":
    words = [*shlex.split(HOOKS[name]["entry"]), *(HOOKS[name].get("args", []) if args is None else args), *files]
    command = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def answers(text: str) -> list[str]:
    """What a hook said but its warnings: the tiny model is one of a kernel that holds all scores."""
    return [line for line in text.splitlines() if ": warning: " not in line]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").mkdir()
    for name in ("one", "two", "-x"):
        scenario = {"model": LLAMA | {"_name_or_path": "tiny"}, "seq": 64, "gpu": "t4"}
        (tmp_path / "scenarios" / f"{name}.yaml").write_text(json.dumps(scenario))
    files = ["scenarios/one.yaml", "scenarios/two.yaml"]
    assert main(["check", *files, "--against", "reports/baseline", "--update"]) == 0
    return tmp_path


def test_only_the_changed_file_is_held_to_the_baseline(checkout: Path) -> None:
    done = hook("vramplan-check", checkout, "scenarios/one.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    model = LLAMA | {"_name_or_path": "tiny", "num_hidden_layers": 3}
    (checkout / "scenarios/one.yaml").write_text(json.dumps({"model": model, "seq": 64, "gpu": "t4"}))
    done = hook("vramplan-check", checkout, "scenarios/one.yaml")
    assert done.returncode == 1
    assert "regression: 1 of 1 result, 1 vanished: one (analytic, cuda): " in done.stdout.splitlines()[-1]


def test_each_file_is_judged_and_the_worst_decides(checkout: Path) -> None:
    both = ["scenarios/one.yaml", "scenarios/two.yaml"]
    done = hook("vramplan-fits", checkout, *both)
    assert done.returncode == 0
    assert [line.split(": ")[:2] for line in answers(done.stdout)] == [[file, "fits"] for file in both]
    done = hook("vramplan-fits", checkout, *both, args=["--budget", "64MiB"])
    assert done.returncode == 1
    assert done.stdout.count("does not fit: ") == 2
    (checkout / "scenarios/two.yaml").write_text("model: llama-2-7x\n")
    done = hook("vramplan-fits", checkout, *both, "scenarios/-x.yaml")
    assert done.returncode == 2
    assert "did you mean 'llama-2-7b'?" in done.stderr
    assert done.stdout.count(": fits: ") == 2


def test_a_run_that_stops_at_its_first_step_is_not_just_one_that_fits(checkout: Path) -> None:
    stops = {"model": "llama-3.2-1b", "gpu": "t4", "attention": "flash_attention_2"}
    (checkout / "scenarios/one.yaml").write_text(json.dumps(stops))
    (checkout / "scenarios/two.yaml").write_text(json.dumps({**stops, "matrix": {"batch": [1, 2]}}))
    lines = hook("vramplan-fits", checkout, "scenarios/one.yaml", "scenarios/two.yaml").stdout.splitlines()
    assert lines[0].startswith("scenarios/one.yaml: warning: the run stops at its first step: ")
    assert lines[1].startswith("scenarios/one.yaml: fits: ")
    names = "two-batch=1, two-batch=2"
    assert lines[2].startswith(f"scenarios/two.yaml: warning: {names}: the run stops at its first step: ")
    assert lines[3:] == ["scenarios/two.yaml: 2 of 2 fit"]
    assert HOOKS["vramplan-fits"]["verbose"]  # pre-commit says nothing of what passes otherwise


def test_a_run_that_nobody_can_judge_is_no_run_that_fits(checkout: Path) -> None:
    """Without a card: alone, in a matrix, and beside one that has a card and fits."""
    tiny = {"model": LLAMA | {"_name_or_path": "tiny"}, "seq": 64}
    matrices = {"none": {"batch": [1, 2]}, "half": {"gpu": ["t4", ""]}}
    for name, matrix in matrices.items():
        (checkout / f"scenarios/{name}.yaml").write_text(json.dumps({**tiny, "matrix": matrix}))
    (checkout / "scenarios/alone.yaml").write_text(json.dumps(tiny))
    for name, share in {"alone": "", "none": "", "half": " on 1 of 2"}.items():
        file = f"scenarios/{name}.yaml"
        done = hook("vramplan-fits", checkout, file)
        assert done.returncode == 2
        assert f"{file}: no verdict{share}: name a card" in done.stdout
        assert done.stderr == f"hint: add 'gpu: rtx4090' to {file}, or args: [--gpu, rtx4090] to the hook\n"
        assert hook("vramplan-fits", checkout, file, args=["--budget", "8GiB"]).returncode == 0


def test_a_file_that_a_flag_names_is_not_judged(checkout: Path) -> None:
    (checkout / "lengths.txt").write_text("16\n32\n")
    done = hook("vramplan-fits", checkout, "scenarios/one.yaml", args=["--lengths", "lengths.txt", "--budget", "8GiB"])
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(": ")[0] for line in answers(done.stdout)] == ["scenarios/one.yaml"]


def test_nothing_to_judge_is_fine(checkout: Path) -> None:
    assert hook("vramplan-fits", checkout).returncode == 0


def test_the_files_pattern_is_about_scenarios() -> None:
    for entry in HOOKS.values():
        assert re.search(entry["files"], "training/scenarios/llama.yaml")
        assert re.search(entry["files"], "scenarios/llama.yml")
        assert not re.search(entry["files"], "scenarios.yaml")
        assert not re.search(entry["files"], "compose.yaml")
