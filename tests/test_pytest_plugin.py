"""The plugin as pytest loads it: one run of somebody else's tests, in a process of its own, read test by test."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest

from vramplan.cli import main

pytest_plugins = ["pytester"]

SAMPLES = """
from dataclasses import replace

import pytest
import torch
from torch import nn


def step(width=64):
    model = nn.Linear(width, width)
    model(torch.randn(16, width)).sum().backward()


def test_within(vram):
    with vram(limit="8GiB", growth=10**7, device="cpu") as used:
        step()
    # parameters and their gradients: 64 x 64 + 64 numbers of 4 bytes each
    assert used.growth >= 2 * (64 * 64 + 64) * 4
    assert used.peak == used.before + used.growth
    assert used.after < used.peak
    assert used.ledger.phases[-1] == "backward"
    assert used.tensors
    assert used.reserved == 0


def test_growth(vram):
    with vram(growth="1MiB"):
        big = torch.zeros(1024, 1024)
        step()


def test_limit(vram):
    with vram(limit="1KiB"):
        big = torch.zeros(1024)


def test_own_assert(vram):
    with vram() as used:
        step()
    assert used.peak < 0


def test_own_error(vram):
    with vram(limit=0):
        raise KeyError("mine")


def test_too_early(vram):
    with vram() as used:
        kept = torch.zeros(10)
        with pytest.raises(RuntimeError, match="when the with statement has ended"):
            used.peak
    assert used.growth == 40


def test_card(vram):
    with vram(device="cuda"):
        pass


def test_decimal_unit(vram):
    vram(limit="3GB")


def test_negative(vram):
    vram(limit=-1)


def test_device(vram):
    vram(device="tpu")


def test_target(vram):
    vram.predict("llama-3.1-8c")


def test_key(vram):
    vram.predict("llama-2-7b", bacth=2)


def test_no_baseline(vram):
    vram.check(vram.predict("llama-2-7b"), against="nowhere.json")


def test_fits(vram):
    prediction = vram.predict("llama-2-7b", gpu="rtx3090", batch=4, seq=512)
    assert prediction.verdict.fits
    assert prediction.ledger.peak < 8 * 2**30
    assert not vram.predict(prediction.scenario, budget="4GiB").verdict.fits


def test_does_not_fit(vram):
    assert vram.predict("llama-2-7b", gpu="rtx3090", batch=64, seq=4096).verdict.fits


def test_as_the_baseline(vram):
    assert vram.check(vram.predict("llama-2-7b", seq=512), against="baseline").passed
    assert vram.check(vram.predict("llama-2-7b", seq=512), against="baseline", limits="peak:0B").passed


def test_above_the_baseline(vram):
    from vramplan.ledger import Component, Ledger
    now = vram.predict("llama-2-7b", seq=512)
    entries = tuple(
        replace(e, bytes=e.bytes * (2 if e.component is Component.ADAPTERS else 1)) for e in now.ledger.entries
    )
    vram.check(replace(now, ledger=Ledger(entries, now.ledger.steady)), against="baseline", limits=["adapters:0B"])


def test_not_in_the_baseline(vram):
    vram.check(vram.predict("llama-2-7b", seq=512, name="other"), against="baseline")


def test_a_target_for_a_result(vram):
    vram.check("scenarios/c.yaml", against="baseline")


def test_a_list_for_a_result(vram):
    vram.check([vram.predict("llama-2-7b", seq=512)], against="baseline")


def test_a_mapping_for_a_target(vram):
    vram.predict({"model": "llama-2-7b"})
"""


class Ran(NamedTuple):
    """How each test ended, and what was shown of it."""

    outcomes: dict[str, str]
    output: str
    report: str

    def shown(self, name: str) -> str:
        return re.split(r"\n_{3,} \w+ _{3,}\n", self.output.partition(f"_ {name} _")[2])[0]


def run_pytest(folder: Path, *options: str) -> Ran:
    report = folder / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", f"--junitxml={report}", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    cases = ET.parse(report).iter("testcase")
    outcomes = {
        case.get("name", ""): next((child.tag for child in case if child.tag != "properties"), "passed")
        for case in cases
    }
    return Ran(outcomes, done.stdout, report.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("samples")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_samples.py").write_text(SAMPLES)
    assert main(["check", "llama-2-7b", "--set", "seq=512", "--against", str(folder / "baseline"), "--update"]) == 0
    return run_pytest(folder, "-p", "no:xdist")


def test_each_ends_as_it_should(ran: Ran) -> None:
    passed = {name for name, outcome in ran.outcomes.items() if outcome == "passed"}
    assert passed - {"test_card"} == {"test_within", "test_too_early", "test_fits", "test_as_the_baseline"}
    assert set(ran.outcomes.values()) <= {"passed", "failure", "skipped"}


def test_a_limit_that_is_passed_names_the_largest_tensors(ran: Ran) -> None:
    # 4 MiB, a weight, a bias, input, output and gradients of 16 KiB and less
    assert re.search(
        r"Failed: vram: 4\.\d\d MiB more than before on cpu is 3\.\d\d MiB over the growth of 1\.00 MiB", ran.output
    )
    shown = ran.shown("test_growth")
    assert re.search(r"-- vram --.*at the peak, in \w+;.*; cpu\n\nMiB +(load +)?forward +backward\n", shown, re.DOTALL)
    assert re.search(r"\nlargest tensors at the peak:\n  4\.00 MiB  \w+ +zeros \[1024, 1024\] float32\n", shown)
    assert "over the limit of 1.00 KiB" in ran.shown("test_limit")
    assert "pytest_plugin.py" not in shown  # the traceback ends in the test


def test_another_failure_shows_them_too_and_a_passing_test_does_not(ran: Ran) -> None:
    assert "largest tensors at the peak" in ran.shown("test_own_assert")
    assert "KeyError: 'mine'" in ran.shown("test_own_error")
    assert "over the limit" not in ran.shown("test_own_error")
    assert "_ test_within _" not in ran.output


def test_a_card_that_is_not_there_skips(ran: Ran) -> None:
    if ran.outcomes["test_card"] == "passed":
        pytest.skip("there is a card")
    assert "vram: there is no CUDA GPU here" in ran.output


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_decimal_unit", "hint: write 3GiB"),
        ("test_negative", "is not an amount of memory"),
        ("test_device", "unknown device 'tpu'"),
        ("test_device", "hint: did you mean 'cpu'? allowed: cuda, cpu"),
        ("test_target", "hint: did you mean 'llama-3.1-8b'?"),
        ("test_key", "bacth"),
        ("test_no_baseline", "nowhere.json does not exist"),
        ("test_no_baseline", "hint: `vramplan check TARGET --against nowhere.json --update` adds it"),
        ("test_not_in_the_baseline", "has no result of other (analytic, cuda)"),
        ("test_a_target_for_a_result", "'scenarios/c.yaml' is no prediction and no record"),
        ("test_a_target_for_a_result", "hint: check one at a time: vram.check(vram.predict(target), against=...)"),
        ("test_a_list_for_a_result", " is no prediction and no record"),
        ("test_a_mapping_for_a_target", "{'model': 'llama-2-7b'} is no target"),
    ],
)
def test_wrong_questions_are_told_with_a_hint(ran: Ran, name: str, words: str) -> None:
    shown = ran.shown(name)
    assert words in shown
    assert shown.count("hint: ") <= 1


def test_a_failed_prediction_is_shown(ran: Ran) -> None:
    shown = ran.shown("test_does_not_fit")
    assert re.search(r"-- vram --+\nllama-2-7b: qlora.*\n.*\ndoes not fit: ", shown, re.DOTALL)


def test_a_result_above_its_baseline_fails_with_the_culprit(ran: Ran) -> None:
    assert "regression: 1 of 1 result: llama-2-7b-qlora (analytic, cuda): adapters in" in ran.shown(
        "test_above_the_baseline"
    )


def test_workers_of_xdist_measure_each_their_own(pytester: pytest.Pytester) -> None:
    source = SAMPLES.partition("def test_within")[0]
    source += """
@pytest.mark.parametrize("width", [64, 128])
def test_it(vram, width):
    with vram(growth="100MiB") as used:
        step(width)
    assert used.growth > 2 * width * width * 4
"""
    pytester.makepyfile(source)
    found = run_pytest(pytester.path, "-n", "2")
    assert found.outcomes == {"test_it[64]": "passed", "test_it[128]": "passed"}
    assert found.report.count('<property name="vram_peak"') == 2


def test_a_run_that_does_not_use_it_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import json, sys

def test_it():
    heavy = ("vramplan", "torch", "numpy", "msgspec")
    print("loaded", json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] in heavy)))
"""
    )
    found = run_pytest(pytester.path, "-s")
    loaded = json.loads(re.findall(r"loaded (\[.*\])", found.output)[0])
    assert loaded == ["vramplan", "vramplan.pytest_plugin"]


def test_without_torch_the_test_fails_with_the_way_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vram):\n    with vram():\n        pass\n")
    pytester.makeconftest(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
    )
    found = run_pytest(pytester.path)
    assert found.outcomes == {"test_it": "failure"}
    assert "pip install 'vramplan[measure]'" in found.output
