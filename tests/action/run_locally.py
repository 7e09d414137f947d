"""Runs this repository's composite action on this machine, as GitHub's runner would run its steps.

    python tests/action/run_locally.py scenarios='scenarios/*.yaml' limits=peak:1% install=false

It reads action.yml and knows what the file uses: inputs with defaults, `if` with `==` and `!=`, environments of
expressions, bash steps, and the files behind GITHUB_ENV, GITHUB_PATH, GITHUB_OUTPUT and GITHUB_STEP_SUMMARY. Steps that
use other actions are named and left out. Anything else in the file is an error, so that nothing is passed over.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
_CONDITION = re.compile(r"([\w.-]+) (==|!=) '([^']*)'")
_STEP_KEYS = {"name", "id", "if", "uses", "with", "shell", "env", "run"}


@dataclass
class Run:
    """What a run of the action left."""

    code: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""
    summary: str = ""
    skipped: list[str] = field(default_factory=list)


def run_action(
    inputs: Mapping[str, str], workspace: Path, *, path: str = "", say: Callable[[str], None] = lambda text: None
) -> Run:
    """The action's steps in `workspace`, with `path` in front of the PATH."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    given = {name: str(facts.get("default", "")) for name, facts in action["inputs"].items()} | dict(inputs)
    unknown = set(given) - set(action["inputs"])
    assert not unknown, f"unknown inputs: {unknown}"
    assert action["runs"]["using"] == "composite"
    context = {f"inputs.{name}": value for name, value in given.items()}
    run = Run()
    with tempfile.TemporaryDirectory() as folder:
        machine = _Machine(Path(folder), workspace, path)
        for step in action["runs"]["steps"]:
            assert set(step) <= _STEP_KEYS, step
            say(f"-- {step['name']}")
            _step(step, context, machine, run, say)
            if run.code:
                break
        run.summary = machine.file("GITHUB_STEP_SUMMARY").read_text(encoding="utf-8")
        for name, facts in action["outputs"].items():
            run.outputs[name] = _filled(facts["value"], context)
        for name in ("report", "json"):  # files of a machine that is about to go
            if run.outputs[name]:
                run.outputs[name] = Path(run.outputs[name]).read_text(encoding="utf-8")
    return run


class _Machine:
    """The runner's files and environment."""

    def __init__(self, folder: Path, workspace: Path, path: str) -> None:
        self.folder = folder
        self.workspace = workspace
        self.path = [path, os.environ["PATH"]] if path else [os.environ["PATH"]]
        self.environment = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            self.file(name).touch()

    def file(self, name: str) -> Path:
        return self.folder / name

    def bash(self, script: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        """One step as the runner calls bash; what it wrote to GITHUB_ENV and GITHUB_PATH holds from then on."""
        file = self.file("step.sh")
        file.write_text(script, encoding="utf-8")
        self.file("GITHUB_OUTPUT").write_text("")
        names = {n: str(self.file(n)) for n in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        runner = {"RUNNER_TEMP": str(self.folder), "GITHUB_ACTION_PATH": str(ROOT), "CI": "true"}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(file)],
            cwd=self.workspace,
            env=self.environment | names | runner | {"PATH": os.pathsep.join(self.path)} | dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            check=False,
        )
        self.path = [*self.file("GITHUB_PATH").read_text(encoding="utf-8").split(), *self.path]
        self.environment |= _assignments(self.file("GITHUB_ENV").read_text(encoding="utf-8"))
        return done


def _step(step: Mapping[str, Any], context: dict[str, str], machine: _Machine, run: Run, say: Any) -> None:
    if "if" in step and not _holds(step["if"], context):
        run.skipped.append(step["name"])
        return
    if "uses" in step:
        say(f"   (left out: {step['uses']})")
        run.skipped.append(step["name"])
        return
    assert step["shell"] == "bash", step
    assert "${{" not in step["run"], "an expression inside a script can be injected into"
    environment = {key: _filled(value, context) for key, value in step.get("env", {}).items()}
    done = machine.bash(step["run"], environment)
    say(done.stdout.rstrip())
    run.log += done.stdout
    run.code = done.returncode
    for key, value in _assignments(machine.file("GITHUB_OUTPUT").read_text(encoding="utf-8")).items():
        context[f"steps.{step.get('id', '')}.outputs.{key}"] = value


def _filled(text: str, context: Mapping[str, str]) -> str:
    """`text` with its expressions evaluated; what a step never wrote is empty, as on GitHub."""
    return _EXPRESSION.sub(lambda m: context.get(m[1], "") if m[1].startswith("steps.") else context[m[1]], text)


def _holds(condition: str, context: Mapping[str, str]) -> bool:
    match = _CONDITION.fullmatch(condition)
    assert match is not None, f"unknown condition: {condition}"
    return (context[match[1]] == match[3]) is (match[2] == "==")


def _assignments(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


if __name__ == "__main__":
    ended = run_action(dict(word.split("=", 1) for word in sys.argv[1:]), Path.cwd(), say=print)
    print("-- outputs")
    for key, value in ended.outputs.items():
        shown = value if "\n" not in value else f"{len(value.splitlines())} lines"
        print(f"   {key}: {shown}")
    sys.exit(ended.code)
