"""The gate bites on changes of the code too: faults put into the closed form's own source, each with its culprit.

A copy of the package is changed in one place and asked, in a process of its own, to hold its predictions to the
baseline of the package as it is. Only growth is a regression, so every fault here costs memory.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from vramplan.cli import main

PACKAGE = Path(__file__).parent.parent / "vramplan"
SCENARIO = "{model: llama-2-7b, batch: 2, seq: 512, gpu: rtx4090, stack: {base: hf-trainer, upcast: none}}"
COMPONENTS = ("weights", "quant-state", "unquantized", "adapters", "optimizer")
LIMITS = [*(f"{name}:0B" for name in COMPONENTS), "phases:0.5%", "reserved:1%", "device:0.5%"]


class Mutant(NamedTuple):
    fault: str
    file: str
    old: str
    new: str
    culprit: str
    """Found; and in the answer's last line, unless what follows from it grew by more."""
    follows: str = ""


MUTANTS = [
    Mutant(
        "matrices are packed at 8 bits",
        "predict/quantization.py",
        "(numel + 1) // (2 * element) * element",
        "(numel + 1) // element * element",
        "weights in",
    ),
    Mutant(
        "code maps are larger",
        "predict/quantization.py",
        "DYNAMIC_MAP_BYTES = 256 * 4",
        "DYNAMIC_MAP_BYTES = 256 * 8",
        "quant-state in",
    ),
    Mutant(
        "norms make the residual stream fp32, though nothing is upcast",
        "predict/base.py",
        "upcast = scenario.stack.upcast if scenario.method.trains else Upcast.NONE",
        "upcast = Upcast.ALL",
        "activations in",
    ),
    Mutant(
        "adapters are twice as wide",
        "predict/adapters.py",
        "return (rank, inputs), (outputs, rank)",
        "return (2 * rank, inputs), (outputs, 2 * rank)",
        "adapters in",
        "optimizer in",  # two states per parameter
    ),
    Mutant(
        "AdamW keeps a third state",
        "predict/optimizer.py",
        'State("exp_avg_sq", size))',
        'State("exp_avg_sq", size), State("max_exp_avg_sq", size))',
        "optimizer in",
    ),
    Mutant(
        "the loss holds another copy of the logits",
        "predict/loss.py",
        'wide = cast(t, logits, FLOAT32, "logits fp32")',
        'again, wide = t.new(logits.shape, FLOAT32, "again"), cast(t, logits, FLOAT32, "logits fp32")',
        "logits in loss",
    ),
    Mutant(
        "cuBLAS takes ten times as much",
        "predict/overheads.py",
        "CUBLAS_WORKSPACE = (2 * 4096 + 8 * 16) * 1024",
        "CUBLAS_WORKSPACE = (2 * 4096 + 8 * 16) * 10240",
        "workspace in",
    ),
    Mutant(
        "blocks are rounded up to 64 KiB", "allocator/rules.py", "MIN_BLOCK = 512", "MIN_BLOCK = 2**16", "allocator in"
    ),
    Mutant(
        "each large segment is 16 MiB larger",
        "allocator/rules.py",
        "return -(-size // ROUND_LARGE) * ROUND_LARGE",
        "return (-(-size // ROUND_LARGE) + 8) * ROUND_LARGE",
        "reserved",
    ),
    Mutant(
        "the context grows",
        "predict/overheads.py",
        "target.context, Basis.CALIBRATED",
        "target.context + 2**28, Basis.CALIBRATED",
        "context in",
    ),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, and beside it a scenario with its baseline."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(PACKAGE, folder / "vramplan")
    (folder / "mine.yaml").write_text(SCENARIO)
    assert main(["check", str(folder / "mine.yaml"), "--against", str(folder / "baseline"), "--update"]) == 0
    return folder


def gate(copy: Path) -> "subprocess.CompletedProcess[str]":
    limits = [f"--limit={limit}" for limit in LIMITS]
    command = [sys.executable, "-m", "vramplan", "check", "mine.yaml", "--against", "baseline", *limits]
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False)


def test_the_copy_itself_passes(copy: Path) -> None:
    done = gate(copy)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_a_fault_in_the_code_is_caught(mutant: Mutant, copy: Path) -> None:
    file = copy / "vramplan" / mutant.file
    source = file.read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1, f"mutate what now stands there for '{mutant.old}'"
    file.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        done = gate(copy)
    finally:
        file.write_text(source, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    answer = done.stdout.splitlines()[-1]
    assert answer.startswith("regression: 1 of 1 result: mine (analytic, cuda): ")
    assert (mutant.follows or mutant.culprit) in answer
    assert mutant.culprit in done.stdout
    assert "no version changed" in answer
