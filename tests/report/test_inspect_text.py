"""An inspected model as text, whole: in a pipe, wide and narrow, each section with and without what it tells of."""

import pytest
from samples import check_golden

from vramplan.inventory.inspection import Inspection, inspect
from vramplan.report.inspect_text import render_inspection
from vramplan.report.layout import Page, visible
from vramplan.scenario import Scenario
from vramplan.units import GIB

GUANACO = {"batch": 4, "seq": 512, "optimizer": "paged_adamw_8bit", "lora": {"rank": 16}}


def inspected(model: str, budget: int | None = None, **keys: object) -> Inspection:
    return inspect(Scenario.load(model, **keys), [8, 64], budget=budget)


@pytest.mark.parametrize("width", [0, 120, 60])
def test_a_model_in_full(width: int) -> None:
    text = render_inspection(inspected("llama-2-7b", int(7.2 * GIB), **GUANACO), Page(width))
    check_golden(f"inspect-{width or 'pipe'}.txt", text)
    if width >= 60:
        assert all(visible(line) <= width for line in text.splitlines())


def test_a_mixture_that_does_not_stay_whole() -> None:
    check_golden("inspect-mixture.txt", render_inspection(inspected("mixtral-8x7b-v0.1", gpu="rtx4090"), Page()))


def test_sections_are_left_out_where_there_is_nothing_to_tell() -> None:
    text = render_inspection(inspected("gpt2", method="inference"), Page())
    assert "targets" not in text
    assert "optimizer" not in text
    assert "device_map" not in text


@pytest.mark.parametrize(
    ("budget", "words"),
    [(9.0, "there is room for all of it"), (7.22, "it runs only because states move"), (6.0, "cannot prevent this")],
)
def test_what_a_full_card_does_is_said(budget: float, words: str) -> None:
    text = render_inspection(inspected("llama-2-7b", int(budget * GIB), **GUANACO), Page())
    assert words in text
