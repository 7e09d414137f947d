"""A user's own calibration of a card, and where predictions find it."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from training_phases import TRAINING_PHASES

from vramplan.catalog import gpus
from vramplan.catalog.calibration import (
    Calibration,
    calibration,
    calibration_file,
    check_calibration_place,
    save_calibration,
)
from vramplan.catalog.gpus import gpu, gpu_of_driver, ship_context
from vramplan.errors import UsageError
from vramplan.ledger import Basis, Component, Phase
from vramplan.predict.engine import predict_analytic
from vramplan.predict.formulas import formulas
from vramplan.predict.overheads import context_entries
from vramplan.scenario import Scenario
from vramplan.units import MIB

MADE = Calibration(
    gpu="Tesla T4", context=200 * MIB, workspaces=2 * 8 * MIB, driver="580.1", torch="2.13.0", date="2026-01-02"
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_it_is_kept_where_xdg_says(config: Path) -> None:
    assert save_calibration("t4", MADE) == config / "vramplan" / "calibration.json" == calibration_file()
    assert calibration("t4") == MADE
    assert calibration("h200") is None
    save_calibration("h200", MADE)
    assert calibration("t4") == MADE
    assert [file.name for file in calibration_file().parent.iterdir()] == ["calibration.json"]


def test_the_default_place_is_below_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibration_file() == tmp_path / ".config" / "vramplan" / "calibration.json"


def test_predictions_use_it_and_say_so(config: Path) -> None:
    before = gpu("t4")
    save_calibration("t4", MADE)
    (entry,) = context_entries(gpu("t4"), (Phase.LOAD,))
    assert (entry.component, entry.bytes, entry.basis) == (Component.CONTEXT, 200 * MIB, Basis.CALIBRATED)
    assert "this machine's Tesla T4, driver 580.1, torch 2.13.0, 2026-01-02" in entry.note
    assert gpu("t4").capacity == before.capacity
    assert gpu("a10").context_origin.startswith("no record")


def test_workspaces_that_were_measured_take_the_place_of_the_rule(config: Path) -> None:
    scenario = Scenario.load("llama-3.2-1b", gpu="t4", seq=512)
    before = predict_analytic(scenario)
    save_calibration("t4", replace(MADE, workspaces=100 * MIB))
    after = predict_analytic(scenario)
    for phase in TRAINING_PHASES:
        kept = [e for e in after.ledger.of(phase) if e.component is Component.WORKSPACE]
        own = [e for e in kept if e.basis is Basis.CALIBRATED]
        assert [entry.bytes for entry in own] == [100 * MIB]
        assert "cuBLAS workspaces, calibrated on this machine's Tesla T4, driver 580.1" in own[0].note
        # by the rule two of 2 x 4096 + 8 x 16 KiB: 16.25 MiB; all else is the same temporaries
        other = before.ledger.bytes(phase, Component.WORKSPACE) - 2 * (2 * 4096 + 8 * 16) * 1024
        assert sum(entry.bytes for entry in kept) == other + 100 * MIB
    assert not [e for e in before.ledger.entries if e.basis is Basis.CALIBRATED and e.component is Component.WORKSPACE]
    assert not [
        e for e in after.ledger.of(Phase.LOAD) if e.component is Component.WORKSPACE and e.basis is own[0].basis
    ]


def test_a_run_without_a_backward_thread_has_one_workspace(config: Path) -> None:
    save_calibration("t4", replace(MADE, workspaces=100 * MIB))
    scenario = Scenario.load("llama-3.2-1b", gpu="t4", method="inference")
    own = [
        e.bytes
        for e in predict_analytic(scenario).ledger.of(Phase.DECODE)
        if (e.component, e.basis) == (Component.WORKSPACE, Basis.CALIBRATED)
    ]
    assert own == [50 * MIB]


def test_every_tensor_still_has_its_formula(config: Path) -> None:
    save_calibration("t4", replace(MADE, workspaces=100 * MIB))
    found = formulas(Scenario.load("llama-3.2-1b", gpu="t4"), "cuda")
    texts = {formula.text for key, formula in found.items() if "cuBLAS" in key[1]}
    assert texts == {"104,857,600 / 2"}


def test_what_was_measured_is_no_workspace_of_cublaslt(config: Path) -> None:
    save_calibration("t4", replace(MADE, workspaces=100 * MIB))
    scenario = Scenario.load("qwen2.5-0.5b", gpu="t4", torch="2.11")  # whose products with a bias are cuBLASLt's
    texts = {key[2]: formula.text for key, formula in formulas(scenario, "cuda").items() if "cuBLASLt" in key[1]}
    assert texts == {2**20: "1024 x 1024"}


@pytest.mark.parametrize(
    "content",
    [
        b'{"t4": {"context": 1}}',
        json.dumps({"t4": {**asdict(MADE), "context": "big"}}).encode(),
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_named(config: Path, content: bytes) -> None:
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_bytes(content)
    with pytest.raises(UsageError, match=r"calibration.json is not a calibration"):
        gpu("t4")
    with pytest.raises(UsageError, match=r"calibration.json is not a calibration"):
        check_calibration_place()


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/nope")
    with pytest.raises(UsageError, match=r"cannot write /proc/nope/vramplan/calibration\.json: "):
        save_calibration("t4", MADE)
    with pytest.raises(UsageError, match=r"cannot write /proc/nope/vramplan/calibration\.json: "):
        check_calibration_place()


def test_a_directory_that_may_not_be_written_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_calibration_place()
    assert calibration_file().parent.is_dir()
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write everywhere
    with pytest.raises(UsageError, match="permission denied"):
        check_calibration_place()


@pytest.mark.parametrize(
    ("title", "name"),
    [  # as `nvidia-smi` prints them
        ("NVIDIA H200", "h200"),
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX A6000", "a6000"),
        ("Tesla V100-SXM2-16GB", "v100-16gb"),
        ("NVIDIA Unheard-of 9000", ""),
        ("", ""),
    ],
)
def test_a_card_is_known_by_its_drivers_name(title: str, name: str) -> None:
    assert gpu_of_driver(title) == name


CATALOG = Path(gpus.__file__).parent / "gpus.json"


def test_a_shipped_context_changes_one_line_of_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gpus.json"
    file.write_text(CATALOG.read_text())
    assert ship_context("h200", context=515 * MIB, workspaces=64 * MIB, record="driver 1", catalog=file) == file
    old, new = CATALOG.read_text().splitlines(), file.read_text().splitlines()
    (changed,) = [i for i, lines in enumerate(zip(old, new, strict=True)) if lines[0] != lines[1]]
    assert json.loads(new[changed].strip(" ,")) == {
        **json.loads(old[changed].strip(" ,")),
        "context": 515 * MIB,
        "workspaces": 64 * MIB,
        "record": "driver 1",
    }
    assert json.loads(file.read_text())["cards"]
    ship_context("h200", context=516 * MIB, workspaces=64 * MIB, record="driver 2", catalog=file)  # renewed, not added
    assert file.read_text().count('"record": "driver') == 1

    monkeypatch.setattr(gpus, "_FILE", file)
    gpus._data.cache_clear()
    gpus._catalogued.cache_clear()
    shipped = gpu("h200")
    monkeypatch.undo()
    gpus._data.cache_clear()
    gpus._catalogued.cache_clear()
    assert (shipped.context, shipped.workspaces) == (516 * MIB, 64 * MIB)
    assert shipped.context_origin == "recorded on H200, driver 2"


@pytest.mark.parametrize("text", [None, "", '{"name": "h200", broken', "{}", b"\xff\xfe"])
def test_a_catalogue_that_is_none_is_bad_input(tmp_path: Path, text: str | bytes | None) -> None:
    file = tmp_path / "gpus.json"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=r"gpus\.json"):
        ship_context("h200", context=1, workspaces=1, record="", catalog=file)
    with pytest.raises(UsageError, match="cannot read"):
        ship_context("h200", context=1, workspaces=1, record="", catalog=tmp_path)
