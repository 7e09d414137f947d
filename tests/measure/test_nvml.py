"""Which card a run would take, and when it may not."""

from dataclasses import replace

import pytest

from vramplan.errors import CannotRun
from vramplan.measure.nvml import Card, check_idle, first_visible
from vramplan.units import GIB

IDLE = Card("NVIDIA A100", "GPU-1", "580.1", "13.0", "8.0", 80 * GIB, 0, 80 * GIB, ())


@pytest.mark.parametrize(
    ("value", "card"),
    [(None, 0), ("0", 0), ("2,0", 2), (" 1 ", 1), ("GPU-8a2f", "GPU-8a2f"), ("MIG-77,GPU-1", "MIG-77")],
)
def test_the_first_visible_card_is_taken(value: str | None, card: int | str) -> None:
    assert first_visible({} if value is None else {"CUDA_VISIBLE_DEVICES": value}) == card


@pytest.mark.parametrize("value", ["", "-1", "none", ",0"])
def test_hidden_cards_cannot_be_used(value: str) -> None:
    with pytest.raises(CannotRun, match=f"CUDA_VISIBLE_DEVICES='{value}' hides every GPU"):
        first_visible({"CUDA_VISIBLE_DEVICES": value})


def test_an_idle_card_may_hold_a_desktop() -> None:
    check_idle(IDLE)
    check_idle(replace(IDLE, used=GIB))


def test_a_busy_card_is_refused_with_who_holds_it() -> None:
    with pytest.raises(CannotRun, match="NVIDIA A100 is busy: processes 7, 8"):
        check_idle(replace(IDLE, processes=(7, 8)))
    with pytest.raises(CannotRun, match=r"5.00 GiB are in use"):
        check_idle(replace(IDLE, used=5 * GIB))
