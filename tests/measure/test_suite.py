"""The suite: its order, its limits, what is fresh, and a real one on the CPU."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from vramplan.allocator import replay
from vramplan.api import predict
from vramplan.check.items import Item
from vramplan.cli import main
from vramplan.errors import UsageError
from vramplan.ledger import Ledger
from vramplan.measure.environment import library_versions
from vramplan.measure.suite import Run, chunk, fresh_record, least_memory, read_suite, run_suite
from vramplan.predict.forecast import forecast
from vramplan.record import Outcome, Parameters, Record, load_result, save_result
from vramplan.report.report_case import question
from vramplan.report.report_claims import article_claims
from vramplan.report.report_facts import Report
from vramplan.report.report_reading import make_report
from vramplan.scenario import Checkpointing, Method, QuantType
from vramplan.units import MIB

GPU_SUITE = Path(__file__).parents[2] / "scenarios" / "gpu"
TINY = Path(__file__).parents[2] / "scenarios" / "tiny"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for name, source in (("one", "llama-nf4"), ("two", "llama-lora")):
        (tmp_path / f"{name}.yaml").write_text((TINY / f"{source}.yaml").read_text())
    (tmp_path / "suite.toml").write_text('chunks = [["two", "one"], ["one"]]\n[limits]\none = 0.9\n')
    return tmp_path


def recorded(run: Run, **changes: object) -> Record:
    record = Record(
        engine="measure",
        device="cuda",
        scenario=run.scenario,
        parameters=Parameters(1, 1, 1),
        bits_per_parameter=4.0,
        ledger=Ledger((), 0),
        libraries=library_versions(),
        outcome=run.expected,
        environment={"gpu": "NVIDIA H200", "memory_limit": run.memory_limit},
        timings={},
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def test_runs_come_in_the_files_order(suite: Path) -> None:
    runs = read_suite(suite)
    assert [(run.chunk, run.name) for run in runs] == [(1, "two"), (1, "one"), (2, "one")]
    assert [run.name for run in chunk(runs, 2)] == ["one"]
    with pytest.raises(UsageError, match="no chunk 3") as caught:
        chunk(runs, 3)
    assert caught.value.hint == "chunks: 1 to 2"


def test_the_card_is_put_where_a_scenario_names_none(suite: Path) -> None:
    assert {run.scenario.gpu for run in read_suite(suite, gpu="h200")} == {"h200"}


def test_all_runs_are_of_the_release_of_torch_that_is_installed(suite: Path) -> None:
    assert {run.scenario.torch for run in read_suite(suite, torch="2.14")} == {"2.14"}


@pytest.mark.parametrize(
    "text", ["chunks = 3", "chunk = []", "chunks = [", 'chunks = [["one"]]\n[limits]\nthree = 1.0']
)
def test_a_broken_order_is_bad_input(suite: Path, text: str) -> None:
    (suite / "suite.toml").write_text(text)
    with pytest.raises(UsageError, match=r"suite\.toml"):
        read_suite(suite)


def test_a_limit_is_a_share_of_the_least_that_is_enough(suite: Path) -> None:
    limited = read_suite(suite)[1]
    parts = forecast(limited.scenario, "cuda").timeline.parts
    least = least_memory(limited.scenario)
    assert replay(parts, budget=least).oom is None
    assert replay(parts, budget=least - MIB).oom is not None
    assert limited.memory_limit == int(0.9 * least) // MIB * MIB
    assert (limited.expected, read_suite(suite)[0].expected) == (Outcome.OOM, Outcome.OK)


def test_only_an_answer_to_the_same_question_is_fresh(suite: Path, tmp_path: Path) -> None:
    run = read_suite(suite)[0]
    file = tmp_path / "two.json"

    def fresh(record: Record) -> bool:
        save_result(record, file)
        return fresh_record(file, run, "cuda", "NVIDIA H200") is not None

    assert fresh_record(file, run, "cuda", "NVIDIA H200") is None
    assert fresh(recorded(run))
    assert fresh(recorded(run, outcome=Outcome.OOM))
    assert not fresh(recorded(run, outcome=Outcome.TIMEOUT))
    assert not fresh(recorded(run, libraries={**library_versions(), "torch": "1.0"}))
    assert not fresh(recorded(run, environment={"gpu": "Tesla T4"}))
    assert not fresh(recorded(run, environment={"gpu": "NVIDIA H200", "memory_limit": MIB}))
    assert not fresh(recorded(run, device="cpu"))
    assert not fresh(recorded(run, scenario=msgspec.structs.replace(run.scenario, batch=7)))
    file.write_text("{")
    assert fresh_record(file, run, "cuda", "NVIDIA H200") is None


def test_a_run_that_is_interrupted_goes_on_where_it_was(suite: Path, tmp_path: Path) -> None:
    runs = chunk(read_suite(suite), 1)
    asked: list[str] = []

    def once(run: Run) -> Record:
        asked.append(run.name)
        return recorded(run)

    def go() -> list[bool]:
        told: list[str] = []
        results = run_suite(runs, tmp_path / "out", once, device="cuda", gpu="NVIDIA H200", progress=told.append)
        return [result.reused for result in results]

    first = run_suite(runs, tmp_path / "out", once, device="cuda", gpu="NVIDIA H200", progress=lambda text: None)
    next(first)  # and no further: the first record is there already
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["two.json"]
    assert go() == [True, False]
    assert asked == ["two", "one"]
    assert go() == [True, True]


def test_the_shipped_suite_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    runs = read_suite(GPU_SUITE)
    assert len(chunk(runs, 1)) == 15
    names = [run.name for run in runs]
    assert sorted(names) == names == sorted(file.stem for file in GPU_SUITE.glob("*.yaml"))
    assert all(run.scenario.load_from == "random" for run in runs)
    assert main(["suite", str(GPU_SUITE), "--dry-run", "--gpu", "h200"]) == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    minutes = re.findall(r"chunk (\d+) ([\d.]+)", verdict)
    assert verdict.startswith(f"{len(runs)} scenarios; minutes, about: chunk 1 ")
    assert [int(number) for number, _ in minutes] == list(range(1, runs[-1].chunk + 1))
    assert all(float(duration) < 8 for _, duration in minutes)


@pytest.fixture(scope="module")
def shipped() -> Report:
    """The closed form's answers to the shipped suite, as a report shows them."""
    runs = read_suite(GPU_SUITE, gpu="h200")
    items = [Item(predict(run.scenario), run.name) for run in runs if run.share is None]
    return make_report(items, lambda scenario, device: predict(scenario, device=device), lambda *_: None)


def test_the_shipped_suite_holds_the_pairs_that_studies_need(shipped: Report) -> None:
    doubles = {pair.double.result.scenario.model.name for pair in shipped.doubles}
    assert doubles >= {"llama-2-7b", "llama-2-13b", "llama-1-65b", "llama-3.1-8b", "qwen2.5-7b"}
    claimed = " ".join(claim.said for claim in article_claims(shipped.doubles))
    assert all(words in claimed for words in ("0.37 bits", "328 MB", "610 MB", "3 GB", "loading a 13B"))
    paged = {
        (pair.plain.result.scenario.optimizer, pair.paged.result.scenario.optimizer) for pair in shipped.optimizers
    }
    assert paged >= {("adamw_8bit", "paged_adamw_8bit"), ("adamw_torch", "paged_adamw_32bit")}
    assert all(pair.managed for pair in shipped.optimizers)
    assert len({group.vocab for group in shipped.peaks}) >= 4
    assert {group.seq for group in shipped.peaks} >= {512, 1024, 2048, 4096, 8192}


def test_the_shipped_suite_covers_what_decides_memory(shipped: Report) -> None:
    scenarios = [case.result.scenario for case in shipped.cases]
    found = {key: {getattr(scenario, key) for scenario in scenarios} for key in ("method", "batch", "checkpointing")}
    assert found["method"] == set(Method)
    assert found["batch"] >= {1, 2, 4, 8}
    assert found["checkpointing"] == set(Checkpointing)
    assert {scenario.stack.base for scenario in scenarios} == {"hf-trainer", "trl", "trl-dpo", "script"}
    assert {scenario.attention for scenario in scenarios} >= {"sdpa", "eager"}
    assert any(scenario.evaluation for scenario in scenarios)
    decoded = [scenario for scenario in scenarios if scenario.method is Method.INFERENCE and scenario.new_tokens > 1]
    assert {scenario.quant.type for scenario in decoded} >= {QuantType.NF4, QuantType.NONE}


def test_limits_come_in_pairs_that_differ_in_nothing_else() -> None:
    limited: dict[str, set[Outcome]] = {}
    for run in read_suite(GPU_SUITE, gpu="h200"):
        if run.share is not None:
            limited.setdefault(question(run.scenario), set()).add(run.expected)
    assert len(limited) >= 3
    assert all(endings == {Outcome.OK, Outcome.OOM} for endings in limited.values())


def test_a_suite_really_runs_on_the_cpu_and_resumes(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (suite / "suite.toml").write_text('chunks = [["two"]]\n[limits]\ntwo = 0.5\n')  # a CPU has no limit to set
    command = ["suite", str(suite), "--device", "cpu", "--steps", "1", "--out", str(suite / "out")]
    assert main(command) == 0
    record = load_result(suite / "out" / "two.json")
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == ["1 measured, 0 fresh already", "all 1 ended as predicted"]
    assert isinstance(record, Record)
    assert out[1].split()[0] == "two"
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "0 measured, 1 fresh already"


def test_the_small_suite_is_whole_and_small() -> None:
    runs = read_suite(TINY, gpu="h200")
    assert {run.chunk for run in runs} == {1, 2}
    assert max(run.scenario.architecture.numel for run in runs) < 10**6
