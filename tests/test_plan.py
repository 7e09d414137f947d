import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from plans import MODEL, fits, held, random_scenario, small_scenario
from samples import check_golden

from vramplan.catalog.gpus import gpu, gpu_names
from vramplan.catalog.models import catalog_entries
from vramplan.cli import main
from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.plan.answer import Plan, most_tokens, plan
from vramplan.plan.frontier import SHORTEST, Row, frontier
from vramplan.plan.goals import Goal, reach
from vramplan.plan.limit import Limit, Probe, allocated_peak, sure_room
from vramplan.plan.matrix import Cell, Matrix, matrix, same_run
from vramplan.plan.search import largest
from vramplan.predict.engine import predict_analytic
from vramplan.predict.forecast import forecast
from vramplan.record import Fit, Verdict
from vramplan.report.layout import Page
from vramplan.report.plan_text import render_matrix, render_plan
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import GIB, MIB

# -- the search


@settings(deadline=None)
@given(answer=st.integers(1, 5000), slope=st.integers(1, 10**7), jump=st.integers(0, 10**9), near=st.integers(0, 6000))
def test_the_search_finds_where_fitting_ends(answer: int, slope: int, jump: int, near: int) -> None:
    def gap(n: int) -> int:
        return (n - answer) * slope + (jump if n > answer else 0)

    assert largest(gap, 1, 5000, near=near) == answer


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 60))
def test_where_fitting_is_not_monotone_the_next_number_fails(fitting: list[bool], near: int) -> None:
    found = largest(lambda n: -1 if fitting[n] else 1, 0, len(fitting) - 1, near=near)
    if found is None:
        assert not fitting[0]
    else:
        assert fitting[found]
        assert found == len(fitting) - 1 or not fitting[found + 1]


def test_the_search_takes_few_trials() -> None:
    tried: list[int] = []

    def gap(n: int) -> int:  # 1 MiB a token, and 300 MiB of fragmentation near the end
        tried.append(n)
        return (n - 18_087) * MIB + (300 * MIB if n > 18_087 else 0)

    assert largest(gap, 64, 2**20) == 18_087
    assert len([n for n in tried if abs(n - 18_087) < 301]) <= 25  # what is replayed: halving 2^20 takes 20
    assert max(tried) <= 4 * 18_087  # a loss in chunks has events for each of them
    tried.clear()
    assert largest(gap, 64, 2**20, near=18_090) == 18_087
    assert len(tried) <= 10
    assert max(tried) <= 4 * 18_090


# -- fitting


@pytest.mark.parametrize("seed", range(12))
def test_a_probe_says_what_predict_says(seed: int) -> None:
    scenario = random_scenario(seed)
    timeline = forecast(scenario, "cuda").timeline
    low, high = allocated_peak(timeline), held(scenario)
    for budget in (low - 1, low, (low + high) // 2, high, high * 2):
        verdict = predict_analytic(scenario, budget=budget).verdict
        assert verdict is not None
        probe = Probe(Limit(budget))
        assert probe.fits(scenario) is verdict.fits
        assert probe.fits(scenario, Fit.FITS) is (verdict.word is Fit.FITS)
        assert (probe.gap(scenario) <= 0) is verdict.fits


def test_what_a_search_comes_back_to_is_not_worked_out_again() -> None:
    scenario = small_scenario()
    probe = Probe(Limit(held(scenario)))
    assert probe.held(scenario) is probe.held(small_scenario())
    assert probe.verdict(scenario) is probe.verdict(small_scenario())
    assert probe.held(replace(scenario, seq=scenario.seq - 1)) is not probe.held(scenario)


@pytest.mark.parametrize("seed", range(100, 112))
def test_what_counts_as_sure_fits(seed: int) -> None:
    scenario = random_scenario(seed)
    assert fits(scenario, sure_room(allocated_peak(forecast(scenario, "cuda").timeline)))


def test_a_limit_is_the_card_less_reserve_or_the_budget() -> None:
    scenario = small_scenario(gpu="t4")
    card = gpu("t4")
    assert Limit().bytes(scenario) == card.capacity
    assert Limit(reserve=GIB).bytes(scenario) == card.capacity - GIB
    assert Limit(8 * GIB).room(scenario) == 8 * GIB - card.context
    assert Limit(8 * GIB).room(small_scenario()) == 8 * GIB
    with pytest.raises(UsageError, match="neither a card nor a budget"):
        Limit().bytes(small_scenario())


# -- the frontier


@pytest.mark.parametrize("seed", range(15))
def test_the_frontier_is_where_predict_says(seed: int) -> None:
    pick = random.Random(seed)
    scenario = random_scenario(seed)
    batch = pick.choice([1, 2, 4])
    budget = int(held(replace(scenario, batch=batch, seq=pick.randrange(128, 900))) * pick.uniform(0.9, 1.1))
    (row,) = frontier(scenario, Limit(budget), (batch,))
    at = row.scenario
    assert at == replace(scenario, batch=batch, seq=at.seq)
    assert fits(at, budget)
    assert not fits(replace(at, seq=at.seq + 1), budget)
    for seq in pick.sample(range(SHORTEST, at.seq), min(8, at.seq - SHORTEST)):
        assert fits(replace(at, seq=seq), budget), f"{seq} below {at.seq}"
    assert row.allocated <= row.device <= budget


def test_a_row_says_what_made_it_grow() -> None:
    scenario = small_scenario(attention="sdpa")  # the logits of 8,000 words are most of what a token costs
    (row,) = frontier(scenario, Limit(held(replace(scenario, seq=2000))), (1,))
    assert row.binding is Component.LOGITS
    assert row.tokens == row.scenario.seq
    in_peak = predict_analytic(row.scenario).ledger.bytes(row.phase, Component.LOGITS)
    assert row.binding_bytes == in_peak


def test_no_row_where_the_weights_alone_are_too_much() -> None:
    assert frontier(small_scenario(), Limit(MIB)) == ()


def _row(batch: int, seq: int) -> Row:
    return Row(small_scenario(batch=batch, seq=seq), 9 * GIB, 10 * GIB, Phase.BACKWARD, Component.LOGITS, 4 * GIB)


def test_most_tokens_stays_within_the_context() -> None:
    rows = (_row(1, 9000), _row(2, 4400), _row(4, 2000), _row(8, 900))
    # The model has 2,048 positions: 2,048, 4,096, 8,000 and 7,200 tokens.
    assert most_tokens(rows, Limit(12 * GIB)) is rows[2]
    assert most_tokens((), Limit(12 * GIB)) is None


def test_a_batch_grows_where_the_context_is_the_limit() -> None:
    budget = held(small_scenario(batch=5, seq=2048))
    best = plan(small_scenario(), Limit(budget), batches=(1, 2)).best
    assert best is not None
    assert best.scenario.seq == 2048
    assert best.scenario.batch >= 5
    assert not fits(replace(best.scenario, batch=best.scenario.batch + 1), budget)


# -- goals


@pytest.mark.parametrize("goal", [Goal.MAX_SEQ, Goal.MAX_BATCH, Goal.MAX_RANK])
def test_one_more_does_not_fit(goal: Goal) -> None:
    scenario = small_scenario(batch=2, seq=512, lora={"rank": 8})
    budget = held(replace(scenario, seq=700))
    row = reach(goal, scenario, Probe(Limit(budget)))
    assert row is not None
    at = row.scenario
    more = {
        Goal.MAX_SEQ: replace(at, seq=at.seq + 1),
        Goal.MAX_BATCH: replace(at, batch=at.batch + 1),
        Goal.MAX_RANK: replace(at, lora=replace(at.lora, rank=at.lora.rank + 1)),
    }[goal]
    assert fits(at, budget)
    assert not fits(more, budget)


def test_the_cheapest_card_is_the_smallest_that_fits() -> None:
    scenario = scenario_from_mapping({"model": "llama-3.2-1b", "seq": 4096})
    row = reach(Goal.CHEAPEST_GPU, scenario, Probe(Limit()))
    assert row is not None
    found = gpu(row.scenario.gpu)
    for name in gpu_names():
        if gpu(name).capacity < found.capacity:
            verdict = predict_analytic(replace(scenario, gpu=name)).verdict
            assert verdict is not None
            assert not verdict.fits, name


def test_a_card_on_which_the_run_would_stop_is_not_the_cheapest() -> None:
    """FlashAttention needs compute capability 8.0, and the smallest cards that have room are older."""
    scenario = scenario_from_mapping({"model": "llama-3.2-1b", "seq": 1024})
    old, new = (
        reach(Goal.CHEAPEST_GPU, replace(scenario, attention=attention), Probe(Limit()))
        for attention in ("sdpa", "flash_attention_2")
    )
    assert old is not None
    assert new is not None
    assert gpu(old.scenario.gpu).capability < (8, 0) <= gpu(new.scenario.gpu).capability


def test_the_largest_model_is_the_first_from_above() -> None:
    limit = Limit(3 * GIB)
    row = reach(Goal.MAX_MODEL, scenario_from_mapping({"model": "gpt2", "seq": 256}), Probe(limit))
    assert row is not None
    sizes = {name: entry.parameters for name, entry in catalog_entries().items()}
    found = sizes[row.scenario.model.name]
    assert fits(row.scenario, 3 * GIB)
    next_up = min((size, name) for name, size in sizes.items() if size > found)[1]
    assert not fits(scenario_from_mapping({"model": next_up, "seq": 256}), 3 * GIB)


def test_goals_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="max-rank"):
        reach(Goal.MAX_RANK, small_scenario(method="full"), Probe(Limit(GIB)))
    with pytest.raises(UsageError, match="cheapest-gpu with a budget"):
        reach(Goal.CHEAPEST_GPU, small_scenario(), Probe(Limit(GIB)))


# -- models against cards


@pytest.mark.parametrize(
    "keys",
    [
        {"seq": 256},
        {"seq": 2048},
        {"padding": True},
        {"lora": {"dora": True}},
        {"lora": {"modules_to_save": ["norm"]}},
        {"method": "full"},
        {"model": "gemma-2b"},  # heads of 256
        {"method": "inference", "batch": 100},  # 100 rows when decoding
        {"seq": 64, "batch": 32, "eval": {"batch": 1}},  # 64 rows when evaluating
    ],
    ids=str,
)
def test_cards_that_are_the_same_have_the_same_timeline(keys: dict[str, Any]) -> None:
    scenario = scenario_from_mapping({"model": "qwen2.5-0.5b", "seq": 512, **keys})
    timelines = {}
    for name in gpu_names():
        on_card = replace(scenario, gpu=name)
        timeline = forecast(on_card, "cuda").timeline
        assert timelines.setdefault(same_run(on_card), timeline) == timeline, name
    assert len(timelines) < len(gpu_names())


def test_a_matrix_says_what_predict_says() -> None:
    models = [scenario_from_mapping({"model": name}) for name in ("qwen2.5-0.5b", "tinyllama-1.1b")]
    seqs = (512, 2048, 8192)
    found = matrix(models, ("rtx2060", "t4"), seqs, Limit())
    for scenario, cells in zip(models, found.cells, strict=True):
        for card, cell in zip(found.cards, cells, strict=True):
            verdicts = [predict_analytic(replace(scenario, gpu=card, seq=seq)).verdict for seq in seqs]
            fitting = [seq for seq, verdict in zip(seqs, verdicts, strict=True) if verdict and verdict.fits]
            assert cell.fits is bool(fitting)
            assert cell.scenario.seq == max(fitting, default=512)
            assert cell.scenario.gpu == card


def test_no_length_fits_where_the_run_would_stop() -> None:
    scenario = small_scenario(attention="flash_attention_2")
    found = matrix([scenario], ("t4", "rtx2060", "rtx4090"), (512, 1024), Limit())
    assert [cell.fits for cell in found.cells[0]] == [False, False, True]
    text = render_matrix(found, Page())
    assert "and t4 has 7.5; set attention: sdpa (and so on 1 more card)" in text
    assert text.splitlines()[-1] == "1 of 3 pairs of model and card fit"


# -- text


def _sample(**keys: object) -> Plan:
    scenario = small_scenario(batch=1, seq=512, gpu="rtx3090")
    rows = (_row(1, 9000), _row(2, 4400), _row(4, 2000))
    fits, edge = Verdict(20 * GIB, Fit.FITS, 16 * GIB), Verdict(20 * GIB, Fit.TIGHT, 0)
    values = {"rows": rows, "best": rows[2], "verdict": fits, "best_verdict": edge} | keys
    return Plan(scenario, Limit(20 * GIB), values.pop("goal", Goal.MAX_TOKENS), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [0, 60])
def test_a_plan_as_text(width: int) -> None:
    check_golden(f"plan-{width or 'pipe'}.txt", render_plan(_sample(), Page(width)))


def test_a_goal_beyond_the_context_is_said() -> None:
    scenario = Scenario.load("llama-2-7b", method="inference", seq=512)
    found = plan(scenario, Limit(20 * GIB), Goal.MAX_SEQ)
    assert found.best is not None
    assert found.best.scenario.seq > 4096
    text = render_plan(found, Page())
    assert "longer than the model's context of 4,096 tokens: batch 1" in text


def test_a_plan_for_a_run_that_would_stop_says_so() -> None:
    found = plan(small_scenario(gpu="t4", seq=128, attention="flash_attention_2"), Limit(), Goal.MAX_BATCH)
    assert "warning: the run stops at its first step: FlashAttention" in render_plan(found, Page())
    assert found.to_json()["warnings"] == list(found.warnings) != []


def test_a_plan_says_how_its_model_is_stored() -> None:
    found = plan(Scenario.load("gpt-oss-20b"), Limit(70 * GIB), Goal.MAX_SEQ)
    assert found.best is None  # so the warnings are the target's: with the upcast, its experts alone are 71.22 GiB
    mxfp4, kept = found.warnings
    assert "the checkpoint is quantised by mxfp4" in mxfp4
    assert "only 3.0% of the parameters are quantised" in kept


def test_a_goal_as_text() -> None:
    goal = _sample(goal=Goal.MAX_BATCH, rows=(), verdict=None)
    assert render_plan(goal, Page()).splitlines()[-1] == (
        "tight: largest batch: small, batch 4 x 2,000 tokens, rank 16, 10.00 GiB of 20.00 GiB"
    )
    none = _sample(goal=Goal.MAX_BATCH, rows=(), verdict=None, best=None)
    assert render_plan(none, Page()).splitlines()[-1] == "does not fit: largest batch: none, at batch 1 x 512 tokens"


@pytest.mark.parametrize("width", [0, 40])
def test_a_matrix_as_text(width: int) -> None:
    def cell(card: str, seq: int, *, fits: bool = True) -> Cell:
        return Cell(small_scenario(gpu=card, seq=seq), fits)

    cards = ("t4", "rtx4090", "a100-80gb")
    rows = (
        (cell("t4", 512, fits=False), cell("rtx4090", 512), cell("a100-80gb", 32768)),
        (cell("t4", 2048), cell("rtx4090", 8192), cell("a100-80gb", 32768)),
    )
    sample = Matrix((small_scenario(), small_scenario(method="lora")), cards, (512, 2048, 8192, 32768), rows)
    check_golden(f"plan-matrix-{width or 'pipe'}.txt", render_matrix(sample, Page(width)))


@pytest.mark.parametrize("width", [0, 60, 100])
def test_many_cards_of_a_matrix_go_down(width: int) -> None:
    cards = gpu_names()
    rows = tuple(tuple(Cell(small_scenario(gpu=card, seq=512), True) for card in cards) for _ in range(2))
    text = render_matrix(Matrix((small_scenario(), small_scenario(method="lora")), cards, (512,), rows), Page(width))
    assert [line.split()[0] for line in text.splitlines()[3:-2]] == list(cards)
    assert text.splitlines()[2].split() == ["small", "qlora", "nf4", "small", "lora"]


# -- the command line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    body = {"model": MODEL, "load": "random", "batch": 8, "seq": 512, "checkpointing": False}
    Path("small.yaml").write_text(json.dumps(body))
    return tmp_path


def test_json_names_the_best_setting_and_it_is_a_scenario(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small.yaml", "--budget", "2GiB", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["kind"], body["goal"]) == ("plan", "max-tokens")
    best = scenario_from_mapping(body["best"]["scenario"])
    assert (best.batch, best.seq) == (body["best"]["batch"], body["best"]["seq"])
    assert fits(best, 2 * GIB)
    assert body["best"]["tokens_per_step"] == best.tokens
    assert set(body["best"]["binding"]) == {"component", "phase", "bytes"}
    assert [row["batch"] for row in body["frontier"]] == [1, 2, 4, 8, 16, 32]


def test_what_is_written_fits_and_is_never_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = held(Scenario.load("small.yaml")) // 2
    command = ["plan", "small.yaml", "--budget", str(budget), "--write", "out.yaml"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "does not fit: batch 8 x 512 as given" in out.splitlines()[-1]
    written = Scenario.load("out.yaml")
    assert f"wrote out.yaml: batch {written.batch} x {written.seq:,} tokens, as given after " in err
    assert fits(written, budget)
    assert written.batch * written.grad_accum == 8  # the same training in less memory
    first = Path("out.yaml").read_text()
    assert main(command) == 2
    assert "out.yaml exists" in capsys.readouterr().err
    Path("out.yaml").write_text("mine")
    assert main([*command, "--force"]) == 0
    assert Path("out.yaml").read_text() == first
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_several_models_and_cards_are_a_matrix(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small.yaml", "qwen2.5-0.5b", "--gpu", "t4,rtx 3090", "--gpu", "t4", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["kind"], body["gpus"]) == ("matrix", ["t4", "rtx3090"])
    assert [len(model["cells"]) for model in body["models"]] == [2, 2]
    assert main(["plan", "small.yaml", "--gpu", "t4,rtx3090", "--seqs", "512"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 pairs of model and card fit"


def test_nothing_fits_is_a_no(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small.yaml", "--budget", "1MiB"]) == 1
    assert "no list of changes makes it fit" in capsys.readouterr().out.splitlines()[-1]
    assert main(["plan", "llama-2-70b", "llama-3-70b", "--gpu", "rtx2060"]) == 1


def test_nothing_that_fits_is_written_and_another_card_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-70b", "--gpu", "rtx4090", "--write", "fits.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith("makes it fit; --goal cheapest-gpu looks for a card that does")
    assert err == "wrote nothing: no scenario for fits.yaml fits\n"
    assert not Path("fits.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["neither a card nor a budget", "--gpu", "--budget"]),
        (["--gpu", "rtx499"], ["'rtx499'", "did you mean"]),
        (["--gpu", "t4", "--goal", "max-sqe"], ["'max-sqe'", "did you mean 'max-seq'?"]),
        (["--gpu", "t4", "--seqs", "512"], ["--seqs", "matrix"]),
        (["--gpu", "t4,a10", "--goal", "max-seq"], ["--goal"]),
        (["--gpu", "t4,a10", "--write", "x.yaml"], ["--write"]),
        (["--gpu", "t4,a10", "--budget", "8GiB"], ["--budget"]),
        (["--gpu", "t4,a10", "--seqs", "512,many"], ["'512,many'"]),
        (["--gpu", "t4,a10", "--seqs", f"512,{2**24 + 1}"], [f"'512,{2**24 + 1}'"]),
        (["--budget", "8GB"], ["'8GB'", "8GiB"]),
        (["--gpu", "t4", "--method", "merge"], ["a merge has no batch to plan", "vramplan predict"]),
        (["--gpu", "t4", "--write", "no/such/dir.yaml"], ["--write", "there is no directory 'no/such'"]),
        (["--gpu", "t4", "--reserve", "64GiB"], ["--reserve: 64.00 GiB leaves nothing of t4", "it has 14.74 GiB"]),
        (["--gpu", "a10,t4", "--reserve", "16GiB"], ["--reserve: 16.00 GiB leaves nothing of t4"]),
        (["--reserve", "1GiB"], ["no card is named"]),
        (["--budget", "8GiB", "--reserve", "1GiB"], ["not allowed with"]),
        (["--budget", "8GiB", "--goal", "cheapest-gpu"], ["cheapest-gpu", "--budget"]),
    ],
)
def test_bad_input_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert main(["plan", "small.yaml", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "hint:" in err
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_what_is_printed_is_yaml_that_loads(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small.yaml", "--budget", "2GiB", "--goal", "max-seq", "--write", "longest.yaml"]) == 0
    longest = Scenario.load("longest.yaml")
    told = f"wrote longest.yaml: batch {longest.batch} x {longest.seq:,} tokens, longest sequence"
    assert told in capsys.readouterr().err
    assert yaml.safe_load(Path("longest.yaml").read_text())["batch"] == 8
