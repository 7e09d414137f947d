from typing import Any

import pytest

from vramplan.errors import UsageError
from vramplan.ledger import Basis, Component, Entry, Ledger, Phase, merge_entries

LEDGER = Ledger(
    (
        Entry(Phase.LOAD, Component.WEIGHTS, 100, Basis.EXACT),
        Entry(Phase.LOSS, Component.WEIGHTS, 100, Basis.EXACT),
        Entry(Phase.LOSS, Component.LOGITS, 40, Basis.MODELLED),
        Entry(Phase.LOSS, Component.CONTEXT, 500, Basis.CALIBRATED),
        Entry(Phase.BACKWARD, Component.WEIGHTS, 100, Basis.EXACT),
        Entry(Phase.BACKWARD, Component.WORKSPACE, 40, Basis.MODELLED),
    ),
    steady=100,
)


def test_entries_of_a_phase_add_up_without_the_context() -> None:
    assert LEDGER.allocated(Phase.LOSS) == 140
    assert LEDGER.bytes(Phase.LOSS, Component.CONTEXT) == 500
    assert LEDGER.bytes(Phase.LOAD, Component.LOGITS) == 0


def test_words_stand_for_phases_and_components() -> None:
    assert LEDGER.bytes("loss", "logits") == 40
    assert LEDGER.allocated("backward") == 140
    assert LEDGER.of("load") == (Entry(Phase.LOAD, Component.WEIGHTS, 100, Basis.EXACT),)


@pytest.mark.parametrize("words", [("backwards", "logits"), ("backward", "logit"), (None, "logits")])
def test_an_unknown_word_is_not_nothing(words: Any) -> None:
    with pytest.raises(UsageError, match=r"unknown (phase 'backwards'|component 'logit'|phase 'None')") as error:
        LEDGER.bytes(*words)
    assert "allowed: " in error.value.hint


def test_the_peak_is_the_earliest_of_equal_phases() -> None:
    assert LEDGER.peak == 140
    assert LEDGER.peak_phase is Phase.LOSS
    assert LEDGER.phases == (Phase.LOAD, Phase.LOSS, Phase.BACKWARD)


def test_merging_adds_bytes_and_keeps_the_order_of_run_and_components() -> None:
    merged = merge_entries(
        [
            Entry(Phase.LOSS, Component.LOGITS, 1, Basis.MODELLED),
            Entry(Phase.LOAD, Component.WEIGHTS, 2, Basis.EXACT),
            Entry(Phase.LOSS, Component.LOGITS, 4, Basis.MODELLED, "fp32 copy"),
        ]
    )
    assert merged == (
        Entry(Phase.LOAD, Component.WEIGHTS, 2, Basis.EXACT),
        Entry(Phase.LOSS, Component.LOGITS, 5, Basis.MODELLED, "fp32 copy"),
    )
