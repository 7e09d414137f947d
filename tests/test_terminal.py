import re
from dataclasses import replace

import pytest
from samples import FAILED, NO_FIT, ON_CPU, PREDICTION, RECORD, TINY, check_golden

from vramplan.predict.levers import Lever
from vramplan.record import Prediction
from vramplan.report.layout import Page, visible
from vramplan.report.terminal import render_prediction, render_record
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import GIB, MIB

LEVERS = (
    Lever("batch 2 instead of 4", PREDICTION.scenario, 880 * MIB),
    Lever("paged_adamw_8bit instead of adamw_torch", PREDICTION.scenario, 228 * MIB),
)
SINGLE = replace(
    PREDICTION,
    scenario=scenario_from_mapping(PREDICTION.scenario.to_mapping() | {"quant": {"type": "nf4", "double": False}}),
    bits_per_parameter=4.5,
)


@pytest.mark.parametrize("width", [0, 60, 80, 120])
def test_a_prediction_at_every_width(width: int) -> None:
    check_golden(f"predict-{width or 'pipe'}.txt", render_prediction(PREDICTION, Page(width), levers=LEVERS))


@pytest.mark.parametrize(
    ("name", "prediction"), [("no-fit", NO_FIT), ("cpu", ON_CPU), ("tiny", TINY)], ids=["no-fit", "cpu", "tiny"]
)
def test_other_predictions(name: str, prediction: Prediction) -> None:
    check_golden(f"predict-{name}.txt", render_prediction(prediction, Page(100)))


@pytest.mark.parametrize("width", [60, 72, 80, 100, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    texts = [
        render_prediction(PREDICTION, Page(width, color=True), levers=LEVERS),
        render_record(RECORD, Page(width, color=True)),
    ]
    assert max(visible(line) for text in texts for line in text.splitlines()) <= width


def test_the_verdict_is_the_last_line() -> None:
    assert render_prediction(PREDICTION, Page()).splitlines()[-1].startswith("fits: ")
    assert render_prediction(NO_FIT, Page()).splitlines()[-1].startswith("does not fit: ")


def test_states_in_managed_memory_are_told_of() -> None:
    text = render_prediction(replace(PREDICTION, managed=2 * GIB), Page())
    assert "\n+ 2.00 GiB of paged states in managed memory (main memory when the card is full)\n" in text
    assert "managed memory" not in render_prediction(PREDICTION, Page())


def test_managed_memory_that_the_card_has_no_room_for_moves() -> None:
    assert PREDICTION.verdict is not None
    room = PREDICTION.verdict.margin
    full = render_prediction(replace(PREDICTION, managed=room + GIB), Page())
    assert "when the card is full); 1.00 GiB of it has no room on the card: every step moves pages\n" in full
    assert "no room" not in render_prediction(replace(PREDICTION, managed=room), Page())
    assert "no room" not in render_prediction(replace(NO_FIT, managed=GIB), Page())


def test_a_run_that_fits_only_by_freeing_what_is_cached_says_so() -> None:
    assert PREDICTION.verdict is not None
    budget = max(PREDICTION.reserved.values()) + PREDICTION.context - 1
    freed = replace(PREDICTION, verdict=replace(PREDICTION.verdict, budget=budget, margin=MIB))
    assert render_prediction(freed, Page()).endswith("because PyTorch gives cached memory back before it runs out")
    assert "cached" not in render_prediction(PREDICTION, Page())


def test_colour_adds_nothing_but_colour() -> None:
    coloured = render_prediction(NO_FIT, Page(90, color=True), levers=LEVERS)
    assert "\x1b[31mdoes not fit\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == render_prediction(NO_FIT, Page(90), levers=LEVERS)


def test_a_record() -> None:
    check_golden("measure.txt", render_record(RECORD, Page(100)))


def test_a_run_that_failed_has_no_table() -> None:
    check_golden("measure-timeout.txt", render_record(FAILED, Page(100)))


@pytest.mark.parametrize(("prediction", "verb"), [(PREDICTION, "saves"), (SINGLE, "would save")])
def test_what_double_quantisation_saves_is_one_line(prediction: Prediction, verb: str) -> None:
    # llama-2-7b quantises 6,476,005,376 weights, 224 matrices: 101,187,584 blocks of 64 of 4 B, 0.5 bits a weight;
    # or 1 B, and 395,264 blocks of 256 of 4 B, that is 0.125 + 0.00195 bits; per matrix 1,024 + 4 B more, once 1,024 B
    saved = 4 * 101_187_584 - (101_187_584 + 4 * 395_264 + 224 * 1_028 + 1_024)
    assert f"{saved / MIB:.2f}" == "287.77"
    line = f"double quantisation {verb} 287.77 MiB: 4.127 bits per parameter instead of 4.500"
    assert f"{line} (constants 0.127 instead of 0.500)" in render_prediction(prediction, Page()).splitlines()
