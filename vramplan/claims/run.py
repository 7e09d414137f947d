"""Runs the claims' commands and holds each finding against the verdict that was written down."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from vramplan.claims.claim import Claim, Finding, Output
from vramplan.errors import CannotRun

#: Runs a vramplan command line (its arguments) and returns what it prints.
Answer = Callable[[list[str]], str]


@dataclass(frozen=True, slots=True)
class Checked:
    """A claim beside what its commands say today."""

    claim: Claim
    finding: Finding
    trace: Finding | None
    """What the trace says to the same commands; None where it was not asked."""
    problem: str = ""
    """Why a command could not be run here; the finding then repeats the verdict."""

    @property
    def holds(self) -> bool:
        """Whether the verdict is still the one that was written down, by both engines."""
        traced = self.trace is None or self.trace.verdict is self.claim.verdict
        return self.finding.verdict is self.claim.verdict and traced

    def to_json(self) -> dict[str, Any]:
        """The public JSON object of one row."""
        return {
            "id": self.claim.id,
            "said": self.claim.said,
            "verdict": self.finding.verdict.value,
            "expected": self.claim.verdict.value,
            "arithmetic": self.finding.arithmetic,
            "because": self.claim.because,
            "commands": list(self.claim.commands),
            "measured": self.claim.measured,
            "trace": {"verdict": self.trace.verdict.value, "arithmetic": self.trace.arithmetic} if self.trace else None,
            "problem": self.problem,
        }


def check(claims: Iterable[Claim], answer: Answer, *, trace: bool = False) -> Iterator[Checked]:
    """Every claim with today's finding; equal commands are run once. With `trace`, those that allow it twice."""
    run = cache(lambda line: _run(line, answer))
    for claim in claims:
        try:
            finding = claim.find([run(line) for line in claim.commands])
            asked = [f"{line} --engine trace" for line in claim.commands if trace and claim.traced]
            traced = claim.find([run(line) for line in asked]) if asked else None
        except CannotRun as error:
            yield Checked(claim, Finding(claim.verdict, ""), None, str(error))
            continue
        yield Checked(claim, finding, traced)


def _run(line: str, answer: Answer) -> Output:
    program, *arguments = shlex.split(line)
    if program == "python":
        return _python(arguments)
    found: Output = json.loads(answer([*arguments, "--json"]))
    return found


def _python(arguments: list[str]) -> Output:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}  # else an import may ask the hub for kernels, and wait
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=offline)
    lines = (done.stdout + done.stderr).strip().splitlines()
    last = lines[-1] if lines else ""
    if last.startswith("ModuleNotFoundError"):
        raise CannotRun(last.partition(": ")[2])
    return {"text": last, "code": done.returncode}
