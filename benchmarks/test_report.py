"""The report on two hundred records: read, predicted, compared, rendered and written."""

from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vramplan.api import predict
from vramplan.cli import main
from vramplan.record import Outcome, Record, save_result
from vramplan.scenario import Scenario

RECORDS = 200
#: Each scenario is measured ten times over versions and dates, as a directory of records is.
REPEATS = 10
TINY = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}


def record(scenario: Scenario, growth: float) -> Record:
    """A measurement that differs from the closed form by `growth` in every component."""
    device = "cuda" if scenario.gpu else "cpu"
    base = predict(scenario, device=device)
    entries = tuple(replace(entry, bytes=int(entry.bytes * growth)) for entry in base.ledger.entries)
    shared = ("device", "scenario", "parameters", "bits_per_parameter", "reserved", "libraries")
    return Record(
        engine="measure",
        ledger=replace(base.ledger, entries=entries),
        outcome=Outcome.OK,
        environment={"device": device, "gpu": scenario.gpu, "date": "2026-11-20T12:00:00+00:00"},
        timings={"step_ms": 1000.0},
        **{name: getattr(base, name) for name in shared},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of them a laptop's, half of them a card's."""
    place = tmp_path_factory.mktemp("records")
    lengths = [128 * (i + 1) for i in range(RECORDS // REPEATS // 2)]
    scenarios = [Scenario.load("llama-2-7b", gpu="rtx3090", seq=n, name=f"card-{n}") for n in lengths]
    scenarios += [Scenario.load("llama-2-7b", model=TINY, seq=n, name=f"laptop-{n}", load="random") for n in lengths]
    for i, scenario in enumerate(scenarios):
        base = record(scenario, 1 + (i - 10) / 1000)
        for j in range(REPEATS):
            save_result(base, place / f"{i:02}-{j}.json")
    return place


@pytest.mark.parametrize("form", [["--html", "page.html"], ["--markdown"], ["--csv", "rows.csv"]], ids=lambda v: v[0])
def test_report(
    form: list[str],
    folder: Path,
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = benchmark.pedantic(lambda: main(["report", str(folder), *form]), rounds=1)
    assert code == 0
    benchmark.extra_info["records"] = RECORDS
    benchmark.extra_info["bytes"] = sum(file.stat().st_size for file in tmp_path.iterdir())
