"""Rewriting the baseline on purpose."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from gate_samples import CUDA, UPGRADED, grown, items, named, save_sides
from samples import RECORD

from vramplan.check import read_items
from vramplan.check.update import update_baseline
from vramplan.cli import main
from vramplan.ledger import Component, Phase
from vramplan.record import save_result
from vramplan.units import MIB


def test_update_replaces_adds_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = replace(grown(CUDA, Phase.BACKWARD, Component.LOGITS, 100 * MIB), libraries=UPGRADED)
    old = [CUDA, named(CUDA, "same"), named(CUDA, "gone")]
    new, baseline = save_sides(tmp_path, [moved, old[1], named(CUDA, "../fresh")], old)
    command = ["check", new, "--against", baseline]
    assert main([*command, "--update"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "replaced: guanaco (measured, cuda): peft 0.21.2 -> 0.22.0; logits in backward +100.00 MiB, +40.00%",
        "kept: gone (measured, cuda): not among the new results; --allow-vanished removes it",
        "added: ../fresh (measured, cuda)",
        f"baseline {baseline}: 1 added, 1 replaced, 1 kept, 1 unchanged",
    ]
    assert sorted(file.name for file in Path(baseline).iterdir()) == ["0.json", "1.json", "2.json", "fresh.json"]
    assert main([*command, "--allow-vanished"]) == 0
    assert main([*command, "--update", "--allow-vanished"]) == 0
    assert "removed: gone" in capsys.readouterr().out
    assert sorted(file.name for file in Path(baseline).iterdir()) == ["0.json", "1.json", "fresh.json"]
    assert main(command) == 0


def test_update_keeps_an_array_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, new = tmp_path / "baseline.json", tmp_path / "new.json"
    file.write_text(json.dumps([RECORD.to_json(), CUDA.to_json()]))
    save_result(grown(CUDA, Phase.LOSS, Component.LOGITS, MIB), new)
    assert main(["check", str(new), "--against", str(file), "--update", "--json"]) == 0
    actions = {action["device"]: action["action"] for action in json.loads(capsys.readouterr().out)["actions"]}
    assert actions == {"cpu": "kept", "cuda": "replaced"}
    held = read_items(file)
    assert [item.key.device for item in held] == ["cpu", "cuda"]
    assert held[1].result.ledger.bytes(Phase.LOSS, Component.LOGITS) == 751 * MIB  # 750 and the one that grew


def test_a_failed_update_leaves_the_baseline_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_result(CUDA, tmp_path / "new.json")
    (tmp_path / "file").write_text("in the way")
    assert main(["check", str(tmp_path / "new.json"), "--against", str(tmp_path / "file" / "x"), "--update"]) == 2
    assert "cannot write" in capsys.readouterr().err
    (tmp_path / "broken.json").write_text("{")
    assert main(["check", str(tmp_path / "new.json"), "--against", str(tmp_path / "broken.json"), "--update"]) == 2
    assert (tmp_path / "broken.json").read_text() == "{"


def test_an_empty_directory_is_an_empty_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_result(CUDA, tmp_path / "new.json")
    (tmp_path / "baseline").mkdir()
    command = ["check", str(tmp_path / "new.json"), "--against", str(tmp_path / "baseline")]
    assert main(command) == 2
    assert "baseline holds no record" in capsys.readouterr().err
    assert main([*command, "--update"]) == 0
    assert "1 added" in capsys.readouterr().out
    assert main(command) == 0


def test_a_linked_baseline_stays_a_link_with_its_rights(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    save_result(CUDA, tmp_path / "shared" / "real.json")
    (tmp_path / "shared" / "real.json").chmod(0o640)
    (tmp_path / "baseline.json").symlink_to(tmp_path / "shared" / "real.json")
    save_result(grown(CUDA, Phase.LOSS, Component.LOGITS, MIB), tmp_path / "new.json")
    assert main(["check", str(tmp_path / "new.json"), "--against", str(tmp_path / "baseline.json"), "--update"]) == 0
    assert (tmp_path / "baseline.json").is_symlink()
    (held,) = read_items(tmp_path / "shared" / "real.json")
    assert held.result.ledger.bytes(Phase.LOSS, Component.LOGITS) == 751 * MIB  # 750 and the one that grew
    assert (tmp_path / "shared" / "real.json").stat().st_mode & 0o777 == 0o640


def test_a_result_that_json_cannot_hold_leaves_no_file_behind(tmp_path: Path) -> None:
    save_result(CUDA, tmp_path / "baseline.json")
    before = (tmp_path / "baseline.json").read_bytes()
    odd = replace(CUDA, environment={**CUDA.environment, "gpu": object()})
    with pytest.raises(TypeError):
        update_baseline(
            tmp_path / "baseline.json", items([odd]), read_items(tmp_path / "baseline.json"), remove_vanished=False
        )
    assert [file.name for file in tmp_path.iterdir()] == ["baseline.json"]
    assert (tmp_path / "baseline.json").read_bytes() == before
