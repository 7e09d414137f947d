"""The composite action, its steps really run: what it says, writes and returns; and that no input can do anything."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from run_locally import ROOT, Run, run_action
from tiny_models import LLAMA

from vramplan.cli import main

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two scenarios and their baseline."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").mkdir()
    for name in ("one", "two"):
        write(tmp_path, name)
    assert main(["check", "scenarios/one.yaml", "scenarios/two.yaml", "--against", "baseline", "--update"]) == 0
    return tmp_path


def write(checkout: Path, name: str, **changes: object) -> None:
    scenario = {"model": LLAMA | {"_name_or_path": "tiny"}, "seq": 64, "gpu": "t4"} | changes
    (checkout / "scenarios" / f"{name}.yaml").write_text(json.dumps(scenario))


def act(checkout: Path, **inputs: str) -> Run:
    """The action with vramplan as it is installed here."""
    asked = {"scenarios": "scenarios/*.yaml", "baseline": "baseline", "install": "false"}
    asked |= {key.replace("_", "-"): value for key, value in inputs.items()}
    return run_action(asked, checkout, path=str(Path(sys.executable).parent))


def test_what_did_not_change_passes(checkout: Path) -> None:
    run = act(checkout)
    assert (run.code, run.outputs["verdict"], run.outputs["exit-code"]) == (0, "passed", "0")
    assert "::notice title=vramplan check::ok: 2 results within the limits" in run.log
    assert "ok: 2 results within the limits" in run.summary
    assert run.outputs["report"] == run.summary
    assert json.loads(run.outputs["json"])["passed"] is True
    assert run.skipped == ["Set up Python", "Install vramplan"]


def test_a_regression_names_the_component(checkout: Path) -> None:
    write(checkout, "two", model=LLAMA | {"_name_or_path": "tiny", "num_hidden_layers": 3})
    run = act(checkout, limits="peak:1%\nadapters:0B")
    assert (run.code, run.outputs["verdict"], run.outputs["exit-code"]) == (1, "regression", "1")
    first = next(line for line in run.log.splitlines() if line.startswith("::error"))
    assert re.match(r"::error title=vramplan check::regression: 1 of 2 results: two \(analytic, cuda\): \w", first)
    assert "adapters in" in run.log
    assert "model.num_hidden_layers 2 -> 3" in first
    assert "| two (analytic, cuda) | regressed |" in run.summary
    assert "limits: peak:1%, adapters:0B" in run.summary


@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_a_baseline_that_cannot_be_read_is_an_error(checkout: Path, fault: str) -> None:
    (checkout / "broken.json").write_text('{"schema": 1,')
    run = act(checkout, baseline=f"{fault}.json")
    assert (run.code, run.outputs["verdict"], run.outputs["json"]) == (2, "error", "")
    assert re.search(
        rf"^::error title=vramplan::error: (--against: )?{fault}\.json (does not exist|is not JSON)",
        run.log,
        re.MULTILINE,
    )
    assert "nothing was compared" in run.summary


def test_a_changed_scenario_is_not_comparable(checkout: Path) -> None:
    write(checkout, "two", batch=8)
    run = act(checkout)
    assert (run.code, run.outputs["verdict"]) == (2, "not comparable")
    assert "batch 1 -&gt; 8" in run.summary or "batch 1 -\\> 8" in run.summary


def test_a_scenario_that_does_not_fit_fails(checkout: Path) -> None:
    run = act(checkout, budget="64MiB")
    assert (run.code, run.outputs["verdict"]) == (1, "does not fit")
    assert "::error title=does not fit,file=scenarios/one.yaml::does not fit: " in run.log
    assert re.search(
        r"^\| scenarios/one.yaml \| does not fit: [\d.]+ GiB of 0.06 GiB, [\d.]+ GiB too much \|$", run.summary, re.M
    )
    run = act(checkout, fits="true")
    assert run.code == 0
    assert "| scenarios/one.yaml | fits: " in run.summary


def test_a_matrix_is_counted(checkout: Path) -> None:
    write(checkout, "whole", matrix={"gpu": ["t4", "l4"]})
    write(checkout, "half", matrix={"gpu": ["t4", ""]})
    assert main(["check", *map(str, Path("scenarios").iterdir()), "--against", "baseline", "--update"]) == 0
    run = act(checkout, fits="true")
    assert (run.code, run.outputs["verdict"]) == (2, "error")
    assert "| scenarios/whole.yaml | 2 of 2 fit |" in run.summary
    assert "::no verdict on 1 of 2: " in run.log


def test_a_scenario_without_a_card_cannot_be_said_to_fit(checkout: Path) -> None:
    write(checkout, "one", gpu="")
    assert main(["check", "scenarios/one.yaml", "--against", "baseline", "--update"]) == 0
    assert act(checkout).code == 0
    run = act(checkout, fits="true")
    assert (run.code, run.outputs["verdict"]) == (2, "error")
    assert "::error title=vramplan,file=scenarios/one.yaml::no verdict: name a card" in run.log
    assert act(checkout, gpu="t4").code == 0


def test_a_vanished_scenario_may_be_allowed(checkout: Path) -> None:
    (checkout / "scenarios" / "two.yaml").unlink()
    assert act(checkout).code == 1
    assert act(checkout, allow_vanished="true").code == 0


def test_the_summary_can_be_left_out(checkout: Path) -> None:
    run = act(checkout, summary="false")
    assert (run.code, run.summary) == (0, "")
    assert "within the limits" in run.outputs["report"]


HOSTILE = [
    "$(touch hacked)`touch hacked`'; touch hacked; '\"; touch hacked; \"##[error]hacked%0A::error::hacked<script>|@all",
    "x\n$(touch hacked)\nverdict=passed\n::set-output name=verdict::passed",
    "--update",
]


@pytest.mark.parametrize("value", HOSTILE, ids=["one line", "several lines", "an option"])
@pytest.mark.parametrize(
    "name", ["scenarios", "baseline", "limits", "engine", "gpu", "budget", "fits", "allow_vanished", "summary"]
)
def test_an_input_is_only_ever_a_value(checkout: Path, name: str, value: str) -> None:
    before = {file: file.read_bytes() for file in (checkout / "baseline").iterdir()}
    run = act(checkout, **{name: value})
    assert run.code == 2, run.log
    assert run.outputs["verdict"] == "error"
    assert not list(checkout.rglob("hacked"))
    assert {file: file.read_bytes() for file in (checkout / "baseline").iterdir()} == before
    commands = [line for line in run.log.splitlines() if line.lstrip().startswith("::")]
    assert all(re.match(r"::(error|notice) title=", line) for line in commands)
    assert "##[" not in run.log
    assert "<script>" not in run.summary.replace("    ", "") or "\n    " in run.summary


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"version": "--index-url=https://example.org"}, "is not a version"),
        ({"version": "1.0; touch hacked"}, "is not a version"),
        ({"version": "1.0\n::error::hacked"}, "is not a version"),
        ({"constraints": "nowhere.txt\n::error::x"}, "there is no file"),
    ],
)
def test_what_pip_is_told_is_checked(checkout: Path, inputs: dict[str, str], words: str) -> None:
    run = act(checkout, install="true", **inputs)
    assert run.code == 2
    assert words in run.log
    assert len(run.log.splitlines()) == 1
    assert not list(checkout.rglob("hacked"))


def test_without_vramplan_it_says_so(checkout: Path) -> None:
    (checkout / "bin").mkdir()
    (checkout / "bin" / "python").symlink_to(sys.executable)
    asked = {"scenarios": "scenarios/*.yaml", "baseline": "baseline", "install": "false"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        run = run_action(asked, checkout, path=str(checkout / "bin"))
    assert (run.code, run.outputs["verdict"]) == (3, "cannot run")


@pytest.mark.parametrize("file", [ROOT / "action.yml", *WORKFLOWS], ids=lambda file: file.name)
def test_no_script_holds_an_expression(file: Path) -> None:
    body = yaml.safe_load(file.read_text(encoding="utf-8"))
    jobs = body.get("jobs", {"action": body.get("runs", {})})
    scripts = [step["run"] for job in jobs.values() for step in job.get("steps", ()) if "run" in step]
    assert not [script for script in scripts if "${{" in script]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_give_the_action_inputs_that_it_has(file: Path) -> None:
    known = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    for step in (step for job in jobs.values() for step in job["steps"]):
        if step.get("uses") == "./":
            assert set(step["with"]) <= set(known)


def test_this_projects_workflow_passes_on_its_own_baseline() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/vram.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["closed-form"]["steps"]
    inputs = next(step["with"] for step in steps if step.get("uses") == "./")
    run = run_action(inputs | {"install": "false"}, ROOT, path=str(Path(sys.executable).parent))
    assert run.code == 0, run.log
