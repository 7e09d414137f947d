"""Studies: pairs of runs that differ in one thing, where peaks are, and whether verdicts came true."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from report_samples import CARD_DOUBLE, CARD_SINGLE, PAGED, PLAIN, STUDIED, limited, named, on_h200, report
from samples import ON_CPU, PREDICTION, RECORD, check_golden

from vramplan.claims.claim import Verdict
from vramplan.ledger import Component, Phase
from vramplan.record import Outcome, Record
from vramplan.report.layout import Page
from vramplan.report.report_claims import article_claims
from vramplan.report.report_markdown import report_markdown
from vramplan.report.report_pairs import Steps, Times, steps_of, unpaged
from vramplan.report.report_studies import studies
from vramplan.report.report_text import render_report
from vramplan.report.report_verdicts import Judgement
from vramplan.scenario import Scenario
from vramplan.units import GIB, MIB


def sized(record: Record, parameters: int, saved: int) -> Record:
    """The record as of a model with so many parameters, its constants less by `saved` than those of another."""
    entries = tuple(
        replace(e, bytes=4 * GIB - saved) if e.component is Component.QUANT_STATE else e for e in record.ledger.entries
    )
    return replace(
        record,
        parameters=replace(record.parameters, total=parameters),
        ledger=replace(record.ledger, entries=entries),
    )


@pytest.mark.parametrize("width", [0, 80, 60])
def test_text(width: int) -> None:
    text = render_report(STUDIED, Page(width))
    check_golden(f"report-studies-{width or 'pipe'}.txt", text)
    assert not width or max(map(len, text.splitlines())) <= width


def test_markdown() -> None:
    check_golden("report-studies.md", report_markdown(STUDIED))


def test_a_report_without_pairs_has_no_studies() -> None:
    assert studies(report(RECORD)) == ()
    body = report(RECORD).to_json()
    empty = ("double_quantisation", "double_quantisation_claims", "paged_optimizers", "peaks", "verdicts", "false_fits")
    assert all(body[key] == [] for key in empty)


def test_step_times_are_read_where_they_are_times() -> None:
    assert steps_of(CARD_DOUBLE) == Steps(1010.0, 1000.0, 1020.0)
    assert steps_of(PREDICTION) is None
    for wrong in ("fast", None, float("nan"), -1.0, 0):
        assert steps_of(replace(CARD_DOUBLE, timings={**CARD_DOUBLE.timings, "step_ms_min": wrong})) is None
    assert steps_of(replace(CARD_DOUBLE, timings={})) is None


def test_a_difference_beyond_the_spread_is_of_every_step() -> None:
    slow, fast, between = Steps(110.0, 105.0, 115.0), Steps(100.0, 95.0, 104.0), Steps(103.0, 100.0, 106.0)
    assert Times(fast, slow).slower == pytest.approx(0.1)
    assert Times(fast, slow).beyond_spread
    assert Times(slow, fast).beyond_spread
    assert not Times(fast, between).beyond_spread


def test_the_slowdown_of_double_quantisation() -> None:
    (pair,) = report(CARD_SINGLE, CARD_DOUBLE).doubles
    assert pair.times is not None
    assert (pair.times.slower, pair.times.beyond_spread) == (pytest.approx(0.01), False)
    assert pair.predicted is not None
    assert report(CARD_DOUBLE, replace(CARD_SINGLE, timings={})).doubles[0].times is None


def test_what_ran_out_of_memory_or_had_a_limit_is_no_side_of_a_pair() -> None:
    stopped = replace(CARD_SINGLE, outcome=Outcome.OOM)
    capped = replace(CARD_SINGLE, environment={**CARD_SINGLE.environment, "memory_limit": 8 * GIB})
    for other in (stopped, capped):
        assert report(CARD_DOUBLE, other).doubles == ()


def claims(saved: int, total: int, **changes: Any) -> dict[str, tuple[str, Verdict]]:
    pair = sized(CARD_SINGLE, total, 0), replace(sized(CARD_DOUBLE, total, saved), **changes)
    return {claim.said: (claim.found, claim.verdict) for claim in article_claims(report(*pair).doubles)}


def test_the_articles_claims_are_held_against_models_of_their_size() -> None:
    # 4.5 bits without and 4.127 with: 0.373 saved, 0.37 rounded
    seven = claims(304 * 10**6, 6_738_415_616)
    assert seven["it saves 0.37 bits per parameter"] == ("0.373 bits", Verdict.CONFIRMED)
    assert seven["it saves 328 MB on a 7B"] == ("304.0 MB on llama-2-7b", Verdict.CORRECTED)  # 7.9 % above
    assert claims(320 * 10**6, 7_241_732_096)["it saves 328 MB on a 7B"][1] is Verdict.CONFIRMED  # 2.5 %
    thirteen = claims(592 * 10**6, 13_015_864_320)
    assert thirteen["it saves 610 MB on a 13B"][1] is Verdict.CONFIRMED  # 3 %
    assert claims(3_014_000_000, 65_285_660_672)["it saves 3 GB on a 65B"][1] is Verdict.CONFIRMED
    assert not any("saves 3" in said for said in claims(304 * 10**6, 1_000_000_000))
    half = claims(304 * 10**6, 6_738_415_616, bits_per_parameter=4.0)
    assert half["it saves 0.37 bits per parameter"] == ("0.500 bits", Verdict.CORRECTED)


def test_loading_a_13b_is_between_what_is_allocated_and_what_the_card_shows() -> None:
    def loading(single: int, double: int, reserved: int) -> Verdict:
        sides = []
        for record, size in ((CARD_SINGLE, single), (CARD_DOUBLE, double)):
            entries = tuple(
                replace(e, bytes=size) if (e.phase, e.component) == (Phase.LOAD, Component.UNQUANTIZED) else e
                for e in record.ledger.entries
            )
            others = replace(record.ledger, entries=entries).allocated(Phase.LOAD) - size
            entries = tuple(
                replace(e, bytes=size - others) if (e.phase, e.component) == (Phase.LOAD, Component.UNQUANTIZED) else e
                for e in entries
            )
            sides.append(
                replace(
                    record,
                    parameters=replace(record.parameters, total=13 * 10**9),
                    ledger=replace(record.ledger, entries=entries),
                    reserved={**record.reserved, Phase.LOAD: size + reserved},
                )
            )
        found = article_claims(report(*sides).doubles)
        return next(claim.verdict for claim in found if claim.said.startswith("loading a 13B"))

    # 9.0 and 8.4 GB allocated, 500 MiB of context: 9.1 lies in 9.0-9.52, 8.5 in 8.4-8.92
    assert loading(9_000_000_000, 8_400_000_000, 0) is Verdict.CONFIRMED
    assert loading(9_200_000_000, 8_600_000_000, 0) is Verdict.CORRECTED
    assert loading(9_000_000_000, 8_450_000_000, 10**8) is Verdict.CORRECTED  # 0.55 saved, not 0.6


def test_a_slowdown_is_judged_on_a_card_alone() -> None:
    said = "its slowdown is negligible"
    slow = {"step_ms": 1100.0, "step_ms_min": 1090.0, "step_ms_max": 1110.0}
    assert claims(0, 1)[said][1] is Verdict.CONFIRMED
    # every step above 1005 ms, and 10 % by the medians
    assert claims(0, 1, timings=slow)[said][1] is Verdict.CORRECTED
    sure = {"step_ms": 1009.0, "step_ms_min": 1008.0, "step_ms_max": 1010.0}
    assert claims(0, 1, timings=sure)[said][1] is Verdict.CONFIRMED  # sure, but below 1 %
    on_cpu = [replace(record, device="cpu", reserved={}) for record in (CARD_SINGLE, CARD_DOUBLE)]
    (claim,) = [c for c in article_claims(report(*on_cpu).doubles) if c.said == said]
    assert claim.verdict is Verdict.OPEN
    assert "says nothing about a card" in claim.found


@pytest.mark.parametrize(
    ("paged", "plain"),
    [
        ("paged_adamw_8bit", ("adamw_8bit", "adamw_bnb_8bit")),
        ("paged_adamw_32bit", ("adamw_torch", "adamw_torch_fused")),
        ("paged_lion_32bit", ("lion_32bit",)),
        ("adamw_8bit", ()),
        ("sgd", ()),
    ],
)
def test_a_paged_optimizer_s_counterparts_keep_the_same_states(paged: str, plain: tuple[str, ...]) -> None:
    assert unpaged(paged) == plain


def test_optimizers_that_differ_in_paging_alone_are_a_pair() -> None:
    (pair,) = report(PLAIN, PAGED).optimizers
    assert (pair.plain.name, pair.paged.name, pair.managed) == ("plain", "paged", 400 * MIB)
    assert pair.outside is not None
    assert pair.outside.difference == 250 * MIB  # 750 less 500 MiB of context
    assert pair.times is not None
    assert pair.times.beyond_spread
    longer = replace(PAGED, scenario=msgspec.structs.replace(PAGED.scenario, seq=1024))
    other_states = on_h200("torch", steps=(1.0, 1.0, 1.0), optimizer="adamw_torch")
    for records in ((PLAIN, longer), (other_states, PAGED), (PAGED,)):
        assert report(*records).optimizers == ()


def test_where_nothing_is_paged_the_steps_say_nothing_about_paging() -> None:
    on_cpu = [replace(record, device="cpu", reserved={}, environment={"device": "cpu"}) for record in (PLAIN, PAGED)]
    (study,) = [study for study in studies(report(*on_cpu)) if study.name == "paged"]
    assert study.findings == ("paged: no state is in managed memory, and what the steps differ by is not paging",)


def test_predictions_of_paged_optimizers_are_pairs_too() -> None:
    plain, paged = (
        replace(PREDICTION, scenario=msgspec.structs.replace(PREDICTION.scenario, optimizer=name), managed=size)
        for name, size in (("adamw_torch", 0), ("paged_adamw_32bit", 300 * MIB))
    )
    (pair,) = report(plain, paged).optimizers
    assert (pair.managed, pair.outside, pair.times) == (300 * MIB, None, None)


def test_peaks_by_vocabulary_and_sequence() -> None:
    gemma = msgspec.structs.replace(ON_CPU.scenario, model=Scenario.load("gemma-2-9b").model)
    groups = report(ON_CPU, named(RECORD, "measured"), replace(ON_CPU, scenario=gemma)).peaks
    assert [(group.vocab, group.seq, len(group.cases)) for group in groups] == [(32_000, 512, 2), (256_000, 512, 1)]
    first = groups[0]
    assert first.phases == ((Phase.BACKWARD, 2),)
    assert first.largest == ((Component.WEIGHTS, 2),)
    # 250 MiB of logits in 6017 (predicted) and 6117 MiB (measured)
    assert first.share(Component.LOGITS) == (250 / 6117, 250 / 6017)
    assert report(ON_CPU, named(RECORD, "measured")).peaks == ()  # one vocabulary, one sequence: nothing to compare


def test_verdicts_against_how_runs_ended() -> None:
    checks = {check.case.name: check for check in STUDIED.fits}
    assert {name: check.judgement for name, check in checks.items() if check.limit} == {
        "above": Judgement.RIGHT,
        "below": Judgement.RIGHT,
        "between": Judgement.OPEN,
        "wrong": Judgement.FALSE_FIT,
        "careful": Judgement.CAUTIOUS,
    }
    # the limit is of the allocator: the context of an H200, 465 MiB by its multiprocessors, comes on top
    assert checks["above"].verdict.budget == 8 * GIB + 465 * MIB
    # a whole card: 140 GiB less what others held
    assert checks["7b"].verdict.budget == 139 * GIB


def test_only_runs_on_a_card_that_ended_by_themselves_are_judged() -> None:
    run = limited("timeout", 8 * GIB, Outcome.TIMEOUT)
    sizeless = replace(CARD_DOUBLE, environment={"gpu": "NVIDIA H200"})
    assert report(run, RECORD, PREDICTION, sizeless).fits == ()


def test_json() -> None:
    body = json.loads(json.dumps(STUDIED.to_json()))
    assert body["false_fits"] == ["records/8.json"]
    assert [check["judgement"] for check in body["verdicts"]][:5] == [
        "right",
        "right",
        "either way",
        "false fit",
        "too cautious",
    ]
    (double,) = body["double_quantisation"]
    assert double["step_ms"]["single"] == {"median": 1000.0, "fastest": 995.0, "slowest": 1005.0}
    (paged,) = body["paged_optimizers"]
    assert (paged["managed"], paged["outside_allocator"]) == (400 * MIB, {"plain": 500 * MIB, "paged": 750 * MIB})
    assert [(group["vocabulary"], group["seq"]) for group in body["peaks"]] == [(32_000, 512), (32_000, 4096)]
