"""The gate over two hundred records, files read and answer written."""

import json
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vramplan.api import predict
from vramplan.cli import main
from vramplan.scenario import Scenario

RECORDS = 200


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two directories of measurements, the new ones with one component more by 1 %."""
    body = predict(Scenario.load("llama-2-7b", batch=4, seq=512, gpu="rtx3090")).to_json()
    body |= {"kind": "measurement", "engine": "measure", "outcome": "ok", "environment": {}, "timings": {}}
    del body["verdict"]
    folders = []
    for side, growth in (("baseline", 1.0), ("new", 1.01)):
        folder = tmp_path_factory.mktemp(side)
        folders.append(folder)
        copy = json.loads(json.dumps(body))
        for entry in copy["entries"]:
            entry["bytes"] = int(entry["bytes"] * (growth if entry["component"] == "activations" else 1))
        for phase in copy["phases"]:
            parts = [e["bytes"] for e in copy["entries"] if e["phase"] == phase and e["component"] != "context"]
            copy["phases"][phase]["allocated"] = sum(parts)
        for i in range(RECORDS):
            copy["scenario"]["name"] = f"scenario-{i:03}"
            Path(folder, f"{i:03}.json").write_text(json.dumps(copy, indent=1))
    return str(folders[1]), str(folders[0])


@pytest.mark.parametrize("form", ["text", "json"])
def test_check(
    form: str,
    sides: tuple[str, str],
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark.extra_info["records"] = RECORDS
    new, baseline = sides
    command = ["check", new, "--against", baseline, "--limit", "activations:0.5%", "--format", form]
    code = benchmark.pedantic(main, (command,), rounds=3)
    assert code == 1
    assert "activations" in capsys.readouterr().out


def test_history(sides: tuple[str, str], benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.extra_info["records"] = RECORDS
    assert benchmark.pedantic(main, (["history", sides[0]],), rounds=3) == 0
    assert "nothing moved in 200 scenarios" in capsys.readouterr().out
