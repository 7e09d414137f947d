"""A data set under a scenario, against predictions of every length and all orders of the samples."""

import random
from collections import Counter
from dataclasses import replace as replaced
from fractions import Fraction
from itertools import permutations, product

import pytest
from msgspec.structs import replace
from plans import fits, held, small_scenario
from samples import NO_FIT, PREDICTION, check_golden

from vramplan.dataset.batches import RandomBatches
from vramplan.dataset.grouped import GroupedBatches
from vramplan.dataset.lengths import Cut, Lengths
from vramplan.dataset.outlook import Cell, Feed, Outlook, Risk, Room, Sampler, check_trains_on_data, outlook
from vramplan.dataset.outlook_json import outlook_json
from vramplan.dataset.packing import Packing
from vramplan.dataset.survey import Survey
from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.plan.frontier import Row
from vramplan.plan.limit import Limit
from vramplan.predict.engine import predict_analytic
from vramplan.report.dataset_text import render_outlook
from vramplan.report.layout import Page, visible
from vramplan.units import GIB


def surveyed(samples: list[int]) -> Survey:
    return Survey("data.jsonl", Lengths.of(Counter(samples)), 0)


SCENARIO = small_scenario(batch=2, seq=400)
#: What its batches are, where samples have different lengths.
PADDED = replace(SCENARIO, padding=True)
SAMPLES = random.Random(1).choices(range(10, 500), k=60)


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("at", [120, 260])
def test_the_limit_and_the_risk_are_what_predict_says_of_every_length(at: int, multiple: int) -> None:
    budget = held(replace(PADDED, seq=at))
    found = outlook(SCENARIO, surveyed(SAMPLES), Feed(multiple=multiple), None, Limit(budget), "cuda")
    assert found.room is not None
    limit = found.room.limit
    assert limit % multiple == 0
    assert all(fits(replace(PADDED, seq=seq), budget) for seq in range(1, limit + 1, 23))
    assert not all(fits(replace(PADDED, seq=seq), budget) for seq in range(limit + 1, limit + multiple + 1))
    assert found.room.cut == surveyed(SAMPLES).lengths.cut(limit)
    risk = found.room.risk
    assert risk is not None
    lengths = [-(-min(length, 400) // multiple) * multiple for length in SAMPLES]
    assert fits(replace(PADDED, seq=risk.fitting), budget)
    following = min(length for length in lengths if length > risk.fitting)
    assert not fits(replace(PADDED, seq=following), budget)
    # of 60 samples in pairs, 1 - C(short, 2) / C(60, 2) hold one that is longer
    short = sum(length <= risk.fitting for length in lengths)
    assert risk.share == pytest.approx(1 - short * (short - 1) / (60 * 59))
    assert (risk.expected, risk.chances[0]) == (pytest.approx(30 * risk.share), (1, pytest.approx(risk.share)))
    assert risk.chances[-1] == (30, 1.0)
    assert not found.fits


def test_cells_are_predictions_of_the_padded_batch() -> None:
    found = outlook(SCENARIO, surveyed(SAMPLES), Feed(multiple=16), None, Limit(8 * GIB), "cuda")
    assert [cell.name for cell in found.cells] == ["median", "p99", "longest"]
    assert found.cells[-1].seq == 400
    for cell in found.cells:
        assert cell.seq % 16 == 0
        assert cell.prediction == predict_analytic(replace(PADDED, seq=cell.seq), budget=8 * GIB)
    assert found.fits
    assert found.room == Room(-(-max(SAMPLES) // 16) * 16, Cut(0, 0, 0), None)
    assert found.longest == replace(PADDED, seq=400)


@pytest.mark.parametrize(
    ("batch", "samples", "feed", "padding"),
    [
        (2, [5, 9], Feed(), True),
        (2, [5, 9], Feed(Sampler.GROUPED), True),
        (2, [9, 9], Feed(), False),  # all of one length
        (1, [5, 9], Feed(), False),  # a sample alone is as long as its batch ...
        (1, [5, 9], Feed(multiple=8), True),  # ... but for what makes it a multiple
        (1, [8, 16], Feed(multiple=8), False),
        (2, [5, 9], Feed(Sampler.PACKED), False),  # TRL feeds packed rows without padding ...
        (2, [5, 9], Feed(Sampler.PACKED, Packing.WRAPPED), True),  # ... unless they are wrapped
    ],
)
def test_batches_are_padded_where_rows_of_different_lengths_meet(
    batch: int, samples: list[int], feed: Feed, padding: bool
) -> None:
    packed = Lengths.of(Counter(samples)) if feed.sampler is Sampler.PACKED else None
    found = outlook(replace(SCENARIO, batch=batch), surveyed(samples), feed, packed, None, "cpu")
    assert found.longest.padding is padding
    assert (found.notes != ()) is (feed == Feed(Sampler.PACKED))


def test_a_plan_pads_as_soon_as_it_puts_samples_together() -> None:
    found = outlook(replace(SCENARIO, batch=1), surveyed([5, 9]), Feed(), None, None, "cpu")
    assert found.planned == replace(found.longest, padding=True)


def test_a_kernel_without_masks_is_refused_for_padded_batches() -> None:
    flash = replace(SCENARIO, attention="sdpa:flash")
    with pytest.raises(UsageError, match="takes no mask"):
        outlook(flash, surveyed([5, 9]), Feed(), None, None, "cpu")
    assert not outlook(flash, surveyed([9, 9]), Feed(), None, None, "cpu").longest.padding


def test_without_a_card_or_on_the_cpu_nothing_is_judged() -> None:
    found = outlook(SCENARIO, surveyed(SAMPLES), Feed(), None, None, "cpu")
    assert (found.room, found.fits) == (None, True)
    assert all(cell.prediction.verdict is None and not cell.prediction.reserved for cell in found.cells)


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    found = outlook(replace(SCENARIO, batch=8), surveyed([5, 9, 30]), Feed(), None, None, "cuda")
    assert (found.longest.batch, found.longest.seq, found.batches.count) == (3, 30, 1)


def test_where_nothing_fits_there_is_no_limit() -> None:
    found = outlook(SCENARIO, surveyed(SAMPLES), Feed(), None, Limit(1), "cuda")
    assert found.room is not None
    assert found.room.limit == 0
    assert found.room.risk == Risk(0, 1.0, 30.0, 1.0, ((1, 1.0), (30, 1.0)))


def test_a_data_set_is_trained_on() -> None:
    check_trains_on_data(SCENARIO)
    for keys, words in (({"method": "inference"}, "inference does not train"), ({"stack": "trl-dpo"}, "pairs of")):
        with pytest.raises(UsageError, match=words):
            check_trains_on_data(small_scenario(**keys))


@pytest.mark.parametrize(("batch", "multiple"), [(2, 1), (3, 1), (4, 4)])
def test_padding_and_distribution_are_means_over_all_orders(batch: int, multiple: int) -> None:
    samples = [3, 3, 5, 8, 9, 9, 14]
    scenario = small_scenario(batch=batch, seq=12)
    found = outlook(scenario, surveyed(samples), Feed(multiple=multiple), None, None, "cpu")
    orders = set(permutations([min(length, 12) for length in samples]))
    epochs = [[order[i : i + batch] for i in range(0, 7, batch)] for order in orders]
    padded = [[-(-max(b) // multiple) * multiple for b in epoch] for epoch in epochs]
    tokens = Fraction(
        sum(
            p * len(b)
            for lengths, epoch in zip(padded, epochs, strict=True)
            for p, b in zip(lengths, epoch, strict=True)
        ),
        len(orders),
    )
    assert found.padding == pytest.approx(float(1 - Fraction(49) / tokens))  # 3 + 3 + 5 + 8 + 9 + 9 + 12
    every = [length for lengths in padded for length in lengths]
    for seq, share in found.distribution:
        assert share == pytest.approx(sum(length <= seq for length in every) / len(every))
    for percent in (1, 50, 90, 99):
        expected = next(seq for seq in sorted(set(every)) if sum(n <= seq for n in every) * 100 >= percent * len(every))
        assert found.batch_percentile(Fraction(percent)) == expected


def test_grouped_batches_fail_at_once() -> None:
    budget = held(replace(PADDED, seq=120))
    found = outlook(SCENARIO, surveyed(SAMPLES), Feed(Sampler.GROUPED), None, Limit(budget), "cuda")
    assert isinstance(found.batches, GroupedBatches)
    assert found.room is not None
    assert found.room.risk is not None
    assert (found.room.risk.until, found.room.risk.chances[0]) == (1.0, (1, 1.0))
    random_order = outlook(SCENARIO, surveyed(SAMPLES), Feed(), None, Limit(budget), "cuda")
    assert found.padding < random_order.padding


# -- text and JSON


LENGTHS = Lengths.of({40: 500, 300: 300, 512: 150, 900: 40, 4000: 10})


def _sample(sampler: Sampler = Sampler.RANDOM, packing: Packing = Packing.BFD, *, judged: bool = True) -> Outlook:
    """A thousand samples in batches of four, of which those beyond 600 tokens do not fit."""
    rows = LENGTHS.truncated(1024)
    batches = GroupedBatches(rows, 4, 4) if sampler is Sampler.GROUPED else RandomBatches(rows, 4)
    risk = Risk(
        600, batches.longer(600) / 250, batches.longer(600), batches.until(600), ((1, 0.185), (10, 0.87), (250, 1.0))
    )
    padding = sampler is not Sampler.PACKED
    places = {"median": (300, PREDICTION), "p99": (1024, NO_FIT), "longest": (1024, NO_FIT)}
    cells = tuple(
        Cell(name, replaced(prediction, scenario=replace(prediction.scenario, seq=seq, padding=padding)))
        for name, (seq, prediction) in places.items()
    )
    return Outlook(
        scenario=replace(PREDICTION.scenario, seq=1024),
        survey=Survey("train.jsonl", LENGTHS, 3),
        feed=Feed(sampler, packing, 1),
        rows=rows,
        batches=batches,
        cells=cells,
        room=Room(600, LENGTHS.cut(600), risk) if judged else None,
    )


ROWS = tuple(
    Row(replace(PREDICTION.scenario, batch=batch, seq=seq), GIB, GIB, Phase.BACKWARD, Component.LOGITS, GIB)
    for batch, seq in ((1, 4400), (4, 600), (16, 100))
)


@pytest.mark.parametrize("width", [0, 60, 80])
def test_an_outlook_at_every_width(width: int) -> None:
    lines = render_outlook(_sample(), Page(width), frontier=ROWS)
    check_golden(f"dataset-{width or 'pipe'}.txt", "\n".join(lines))
    assert not width or max(map(visible, lines)) <= width


@pytest.mark.parametrize(
    ("sampler", "packing"), [(Sampler.GROUPED, Packing.BFD), (Sampler.PACKED, Packing.BFD_SPLIT)], ids=str
)
def test_other_samplers(sampler: Sampler, packing: Packing) -> None:
    check_golden(f"dataset-{sampler.value}.txt", "\n".join(render_outlook(_sample(sampler, packing), Page())))


@pytest.mark.parametrize(("width", "sampler"), list(product([60, 72, 100, 200], Sampler)))
def test_nothing_is_wider_than_the_terminal(width: int, sampler: Sampler) -> None:
    lines = render_outlook(_sample(sampler), Page(width, color=True), frontier=ROWS)
    assert max(map(visible, lines)) <= width


def test_json_says_the_same() -> None:
    body = outlook_json(_sample(), ROWS)
    assert (body["samples"], body["tokens"], body["skipped"]) == (1000, 262_800, 3)
    # 1,000 samples: 500 of 40 tokens, 300 of 300, 150 of 512, 40 of 900, 10 of 4,000
    assert body["percentiles"] == {"1": 40, "25": 40, "50": 40, "75": 300, "90": 512, "99": 900, "99.9": 4000}
    assert body["beyond_max_length"] == {"samples": 10, "tokens_truncated": 29_760, "tokens_dropped": 40_000}
    assert sum(found["samples"] for found in body["histogram"]) == 1000
    assert body["batch_lengths"][-1] == {"seq": 1024, "share_up_to": 1.0}
    # four of the 500 shortest: 500 * 499 * 498 * 497 / (1000 * 999 * 998 * 997)
    assert body["batch_lengths"][0] == {"seq": 40, "share_up_to": pytest.approx(0.062125, abs=1e-6)}
    assert [cell["verdict"] for cell in body["batches"]] == ["fits", "does not fit", "does not fit"]
    assert body["room"]["limit"] == 600
    assert body["room"]["risk"]["chances"][-1] == {"micro_batches": 250, "probability": 1.0}
    assert body["frontier"][1] == {
        "batch": 4,
        "seq": 600,
        "samples": 50,
        "tokens_truncated": 46_000,  # 40 * 300 + 10 * 3,400
        "tokens_dropped": 76_000,
    }
    assert outlook_json(_sample(judged=False))["room"] is None
    packed = outlook_json(_sample(Sampler.PACKED))
    assert (packed["packing"], packed["packed"]["samples"]) == ("bfd", 1000)
