"""Asks every tool, each in an environment of its own, and vramplan in this one."""

import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vramplan
from benchmarks.accuracy import METRICS, public_scenario
from benchmarks.peers.rows import Row
from benchmarks.peers.tools import Tool
from vramplan.api import Engine

ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool says about one configuration."""

    row: str
    allocated: int
    reserved: int
    seconds: float
    """Of one estimate in a warm process."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that a tool says."""

    tool: str
    given: tuple[Answer, ...]
    refused: tuple[tuple[str, str], ...]
    """Row and reason."""


def ask_tool(tool: Tool, rows: list[Row], environments: Path) -> Answers:
    """The tool's answers; its environment is made when it isn't there."""
    python = _environment(tool, environments)
    questions = json.dumps([row.question() for row in rows])
    command = [str(python), str(ADAPTERS / tool.adapter)]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(environments)}
    done = subprocess.run(command, input=questions, capture_output=True, text=True, env=offline, check=False)
    if done.returncode:
        raise SystemExit(f"{tool.name}: its adapter failed\n{done.stderr}")
    return _read(tool.name, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])


def _read(tool: str, lines: list[dict[str, Any]]) -> Answers:
    given = tuple(
        Answer(line["id"], line["allocated"], line["reserved"], line["seconds"])
        for line in lines
        if "refused" not in line
    )
    return Answers(tool, given, tuple((line["id"], line["refused"]) for line in lines if "refused" in line))


def _environment(tool: Tool, environments: Path) -> Path:
    """The tool's Python; PyTorch and transformers, where it needs them, are this environment's: large, and pinned."""
    home = environments / tool.requirement
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    venv.create(home, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if tool.heavy:
        subprocess.run([*pip, "--no-deps", tool.requirement], check=True, env=alone)
        own = next(home.glob("lib/python*/site-packages"))
        (own / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    else:
        subprocess.run([*pip, tool.requirement], check=True, env=alone)
    (home / "ready").touch()
    return python


def ask_vramplan(engine: Engine, rows: list[Row]) -> Answers:
    """Our own answers, with the same clock: the second of two estimates."""
    given = []
    for row in rows:
        scenario = public_scenario(row.scenario)
        vramplan.predict(scenario, engine)
        began = time.perf_counter()
        prediction = vramplan.predict(scenario, engine)
        seconds = time.perf_counter() - began
        allocated, reserved = (METRICS[f"train_peak_{kind}"](prediction) for kind in ("allocated", "reserved"))
        given.append(Answer(row.id, allocated, reserved, seconds))
        print(f"vramplan {engine}: {row.id}", file=sys.stderr)
    return Answers(f"vramplan ({engine})", tuple(given), ())
