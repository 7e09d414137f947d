"""A user's own calibration of a card, and where predictions find it."""

from pathlib import Path

import pytest

from vramplan.catalog.calibration import Calibration, calibration, calibration_file, save_calibration
from vramplan.catalog.gpus import gpu, gpu_of_driver
from vramplan.errors import UsageError
from vramplan.ledger import Basis, Component, Phase
from vramplan.predict.overheads import context_entries
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


def test_a_damaged_file_is_named(config: Path) -> None:
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_text('{"t4": {"context": 1}}')
    with pytest.raises(UsageError, match=r"calibration.json is not a calibration"):
        gpu("t4")


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
