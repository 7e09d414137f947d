import random
from itertools import combinations

import pytest
from msgspec.structs import replace
from plans import fits, held, random_scenario, small_scenario
from samples import check_golden

from vramplan.catalog.gpus import gpu
from vramplan.plan.advice import Advice, Step, advise
from vramplan.plan.answer import Plan
from vramplan.plan.goals import Goal
from vramplan.plan.limit import Limit, Probe
from vramplan.plan.shortest_list import applied
from vramplan.predict.changes import CHANGES
from vramplan.predict.forecast import ledger
from vramplan.record import Fit, Verdict
from vramplan.report.layout import Page
from vramplan.report.plan_text import render_plan
from vramplan.scenario import Checkpointing, Scenario
from vramplan.units import GIB

BY_NAME = {change.name: change for change in CHANGES}


def _shortest(scenario: Scenario, budget: int, *, keeping: bool) -> int | None:
    """Length of the shortest list that fits, by trying every one."""
    useful = [c for c in CHANGES if c.variants(scenario) and (c.keeps_training or not keeping)]
    for length in range(1, len(useful) + 1):
        for chosen in combinations(useful, length):
            changed = applied(scenario, chosen)
            if changed is not None and fits(changed, budget):
                return length
    return None


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5])  # 3 asks for ten times as many: benchmarks/plan_cases.py advice
def test_no_list_is_shorter(seed: int) -> None:
    pick = random.Random(seed)
    scenario = random_scenario(seed)
    everything = scenario
    for change in CHANGES:
        everything = (change.variants(everything) or (everything,))[-1]
    low, high = held(everything), held(scenario)
    budget = low + int((high - low) * pick.uniform(-0.1, 0.9))
    while fits(scenario, budget):
        budget = budget * 9 // 10
    found = advise(scenario, Probe(Limit(budget)))
    keeping = [len(advice.steps) for advice in found if advice.keeps_training]
    any_kind = min((len(advice.steps) for advice in found), default=None)
    assert (keeping[0] if keeping else None) == _shortest(scenario, budget, keeping=True)
    assert any_kind == _shortest(scenario, budget, keeping=False)
    for advice in found:
        assert fits(advice.scenario, budget)
        assert advice.verdict == Probe(Limit(budget)).verdict(advice.scenario)


def test_a_change_that_makes_another_needless_hides_no_list() -> None:
    """On a T4 an fp32 base in 16 bits is float16, and then `float16` has nothing left to change."""
    scenario = small_scenario(method="lora", dtype="float32", gpu="t4", stack="hf-trainer", seq=512)
    limit = Limit(int(held(BY_NAME["dtype"].variants(scenario)[0]) * 1.2) + gpu("t4").context)
    assert not Probe(limit).fits(scenario)
    (best, *_) = advise(scenario, Probe(limit))
    assert [step.change.name for step in best.steps] == ["dtype"]


def test_a_change_that_bars_another_hides_no_list() -> None:
    """In 16 bits on a T4 means float16, and then TRL's bfloat16 adapters of a quantised base cannot be trained."""
    keys = {"method": "lora", "dtype": "float32", "compute_dtype": "float32", "gpu": "t4"}
    scenario = small_scenario(**keys, stack={"base": "trl", "autocast": "bfloat16"}, seq=128, optimizer="sgd")
    quantised = BY_NAME["quantize"].variants(scenario)[0]
    assert BY_NAME["quantize"].variants(BY_NAME["dtype"].variants(scenario)[0]) == ()
    (best, *_) = advise(scenario, Probe(Limit(held(quantised) + gpu("t4").context)))
    assert [step.change.name for step in best.steps] == ["quantize"]


def test_where_the_training_has_to_change_it_changes_no_more_than_needed() -> None:
    """The shortest list cuts samples; all that keeps the training lets it cut them less."""
    scenario = small_scenario(batch=2, seq=2048)
    kept = scenario
    for change in CHANGES:
        if change.keeps_training:
            kept = (change.variants(kept) or (kept,))[-1]
    budget = held(kept) * 4 // 5
    gentle, shortest = advise(scenario, Probe(Limit(budget)))
    for advice in (gentle, shortest):
        assert [step.change.name for step in advice.steps if not step.change.keeps_training] == ["sequence"]
        assert fits(advice.scenario, budget)
    assert len(gentle.steps) > len(shortest.steps)
    assert gentle.scenario.seq > shortest.scenario.seq


def test_every_saving_is_a_prediction() -> None:
    scenario = small_scenario(batch=8, seq=512, checkpointing=False, stack="script", attention="eager")
    limit = Limit(held(scenario) // 4)
    (best, *_) = advise(scenario, Probe(limit))
    before = scenario
    for step in best.steps:
        then, now = Probe(limit).verdict(before), Probe(limit).verdict(step.scenario)
        assert step.total == now.budget - now.margin
        assert step.saves == (then.budget - then.margin) - step.total
        before = step.scenario
    assert best.verdict.margin == limit.bytes(scenario) - best.steps[-1].total


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    scenario = small_scenario()
    assert advise(scenario, Probe(Limit(10 * held(scenario)))) == ()


def test_what_is_tight_becomes_safe() -> None:
    scenario = small_scenario(batch=4, seq=512)
    budget = held(scenario)
    while fits(scenario, budget * 99 // 100):
        budget = budget * 99 // 100
    limit = Limit(budget)  # fits by next to nothing
    assert Probe(limit).verdict(scenario).word == "tight"
    (best, *_) = advise(scenario, Probe(limit))
    assert best.verdict.word == "fits"


def test_degrees_go_no_further_than_needed() -> None:
    scenario = small_scenario(batch=8, seq=512, optimizer="sgd", stack={"loss": "liger", "upcast": "none"})
    limit = Limit(held(replace(scenario, batch=5)))
    (best, *_) = advise(scenario, Probe(limit))
    assert [step.change.name for step in best.steps] == ["micro-batch"]
    assert best.scenario.batch == 4  # 8 samples in pieces of 4, not of 1
    assert best.scenario.grad_accum == 2
    assert best.steps[0].label == "batch 4 with grad_accum 2"


def test_the_cheaper_of_two_changes_wins() -> None:
    """Both alone suffice: freeing outputs is one line of code, smaller batches make every step slower."""
    scenario = small_scenario(batch=8, seq=512, stack="script")
    freed = BY_NAME["outputs"].variants(scenario)[0]
    budget = int(held(freed) * 1.05)
    assert not fits(scenario, budget)
    assert fits(replace(scenario, batch=1, grad_accum=8), budget)
    found = advise(scenario, Probe(Limit(budget)))
    assert len(found) == 1
    assert [step.change.name for step in found[0].steps][-1] != "micro-batch"


# -- the table of changes


def test_changes_that_keep_the_training_come_first() -> None:
    kept = [change.keeps_training for change in CHANGES]
    assert kept == sorted(kept, reverse=True)
    assert [change.name for change in CHANGES] == [
        *(
            "expandable-segments",
            "double-quant",
            "dtype",
            "optimizer",
            "attention",
            "reentrant",
            "eval accumulate",
            "eval batch",
        ),
        *("outputs", "float16", "loss", "kernels", "loss in chunks", "checkpointing", "micro-batch", "upcast"),
        *("four-bit", "quantize", "trained dtype", "sequence", "dora", "modules", "targets", "rank", "adapters"),
    ]
    assert all(change.cost for change in CHANGES)


@pytest.mark.parametrize(
    ("optimizer", "becomes"),
    [
        ("adamw_torch", "paged_adamw_8bit"),
        ("lion_32bit", "paged_lion_8bit"),
        ("rmsprop", "rmsprop_bnb_8bit"),
        ("ademamix", "paged_ademamix_8bit"),
        ("adamw_bnb_8bit", None),
        ("sgd", None),
        ("adafactor", None),
    ],
)
def test_the_8bit_optimizer_is_of_the_same_family(optimizer: str, becomes: str | None) -> None:
    variants = BY_NAME["optimizer"].variants(small_scenario(optimizer=optimizer))
    assert [v.optimizer for v in variants] == ([becomes] if becomes else [])


@pytest.mark.parametrize(
    ("quant", "checkpointing", "name", "becomes"),
    [
        ("nf4", False, "checkpointing", "NON_REENTRANT"),
        ("int8", False, "checkpointing", "REENTRANT"),
        ("int8", True, "reentrant", "REENTRANT"),
        ("int8", "reentrant", "reentrant", None),
        ("nf4", True, "reentrant", None),
    ],
)
def test_checkpointing_becomes_the_kind_that_keeps_less(
    quant: str, checkpointing: bool | str, name: str, becomes: str | None
) -> None:
    scenario = small_scenario(quant={"type": quant}, checkpointing=checkpointing, batch=4, seq=512)
    variants = BY_NAME[name].variants(scenario)
    assert [v.checkpointing for v in variants] == ([Checkpointing[becomes]] if becomes else [])
    if name == "checkpointing":
        kinds = (replace(scenario, checkpointing=kind) for kind in Checkpointing)
        assert ledger(variants[0]).peak == min(ledger(kind).peak for kind in kinds)


def test_every_change_leads_to_a_scenario_file_that_loads() -> None:
    from vramplan.scenario_file import scenario_from_mapping

    given = [
        small_scenario(quant={"double": False}, attention="eager", stack="script", checkpointing=False, batch=4),
        small_scenario(quant={"type": "int8"}, lora={"rank": 64}),
        small_scenario(method="lora"),
        small_scenario(method="full"),
        small_scenario(method="full", dtype="float32", gpu="t4"),
        small_scenario(method="lora", dtype="float32", compute_dtype="float32", stack="trl"),
        small_scenario(gpu="t4"),
        small_scenario(eval={"batch": 8, "accumulate": 4}),
    ]
    changed = [variant for scenario in given for change in CHANGES for variant in change.variants(scenario)]
    assert len(changed) > 30
    for scenario in changed:
        assert scenario_from_mapping(scenario.to_mapping()) == scenario


def test_advice_as_json() -> None:
    scenario = small_scenario(batch=8, seq=512)
    change, verdict = BY_NAME["sequence"], Verdict(8 * GIB, Fit.TIGHT, GIB)
    label = "sequence 128 instead of 512"
    advice = Advice((Step(change, label, 8 * GIB, 7 * GIB, scenario),), verdict)
    assert advice.to_json() == {
        "keeps_training": False,
        "changes": [
            {"name": "sequence", "label": label, "saves": 8 * GIB, "total": 7 * GIB, "cost": change.cost},
        ],
        "verdict": {"budget": 8 * GIB, "fits": True, "word": "tight", "margin": GIB, "needed": 7 * GIB},
        "scenario": scenario.to_mapping(),
    }


# -- text


@pytest.mark.parametrize("width", [0, 72])
def test_advice_as_text(width: int) -> None:
    scenario = small_scenario(batch=8, seq=512, checkpointing=False)
    checkpointed = replace(scenario, checkpointing=BY_NAME["checkpointing"].variants(scenario)[0].checkpointing)
    halved = replace(checkpointed, batch=4, grad_accum=2)
    fits_ = Verdict(8 * GIB, Fit.FITS, 2 * GIB)
    two = Advice(
        (
            Step(BY_NAME["checkpointing"], "gradient checkpointing", 5 * GIB, 10 * GIB, checkpointed),
            Step(BY_NAME["micro-batch"], "batch 4 with grad_accum 2", 4 * GIB, 6 * GIB, halved),
        ),
        fits_,
    )
    one = Advice((Step(BY_NAME["sequence"], "sequence 128 instead of 512", 8 * GIB, 7 * GIB, scenario),), fits_)
    given = Verdict(8 * GIB, Fit.NO, -7 * GIB)
    plan = Plan(scenario, Limit(8 * GIB), Goal.MAX_TOKENS, (), None, given, None, (two, one))
    check_golden(f"advice-{width or 'pipe'}.txt", render_plan(plan, Page(width)))
