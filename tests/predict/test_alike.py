"""Micro-batches as rounds; that real steps stay event by event what they were is held by `test_event_order`."""

import pytest
from msgspec.structs import replace

from vramplan.ledger import Phase
from vramplan.predict.alike import folded
from vramplan.predict.forecast import forecast
from vramplan.predict.script_items import Item, Rounds
from vramplan.scenario import Scenario
from vramplan.timeline import Enter, Part, Repeat

FORWARD, BACKWARD, STEP = Phase.FORWARD, Phase.BACKWARD, Phase.STEP
#: What each block is: an even one a tensor, an odd one a larger one.
KINDS = ["tensor", "larger"] * 8


def test_micro_batches_that_do_the_same_are_rounds_of_one() -> None:
    items: list[Item] = [0, FORWARD, 2, 3, BACKWARD, ~2, ~3, FORWARD, 4, 5, BACKWARD, ~4, ~5, FORWARD, 6, STEP, ~6]
    assert folded(items, KINDS, 0) == [0, FORWARD, Rounds(2, False, [2, 3, BACKWARD, ~2, ~3, FORWARD]), 6, STEP, ~6]


def test_what_is_held_into_the_next_is_given_back_before_a_round_begins() -> None:
    items: list[Item] = [FORWARD, 2, FORWARD, ~2, 4, FORWARD, ~4, 6, FORWARD, ~6, 8, STEP, ~8]
    assert folded(items, KINDS, 0) == [FORWARD, Rounds(3, False, [2, FORWARD, ~2]), 8, STEP, ~8]


def test_layers_are_compared_as_well() -> None:
    def micro_batch(block: int, times: int) -> list[Item]:
        return [FORWARD, Rounds(times, False, [block]), BACKWARD, Rounds(times, True, [~block])]

    alike = [*micro_batch(2, 32), *micro_batch(4, 32), FORWARD]
    assert folded(alike, KINDS, 0) == [FORWARD, Rounds(2, False, [*micro_batch(2, 32)[1:], FORWARD])]
    different = [*micro_batch(2, 32), *micro_batch(4, 31), FORWARD]
    assert folded(different, KINDS, 0) == different


@pytest.mark.parametrize(
    "items",
    [
        [FORWARD, 2, ~2, FORWARD, 3, ~3, FORWARD],  # another tensor
        [FORWARD, 2, FORWARD, 4, FORWARD, STEP, ~2, ~4],  # kept
        [0, 1, FORWARD, STEP, ~0, FORWARD, STEP, ~1, FORWARD],  # taken before
        [FORWARD, 2, ~2, STEP],  # only one
        [2, ~2, STEP],  # none
    ],
)
def test_what_is_no_round_stays(items: list[Item]) -> None:
    assert folded(items, KINDS, 0) == items


def test_what_comes_before_stays_at_its_index() -> None:
    items: list[Item] = [FORWARD, 2, ~2, FORWARD, 4, ~4, FORWARD, 6, ~6, FORWARD]
    assert folded(items, KINDS, 2) == [FORWARD, 2, ~2, FORWARD, Rounds(2, False, [4, ~4, FORWARD])]


@pytest.mark.parametrize("stack", ["hf-trainer", "script"])
def test_a_step_of_many_micro_batches_is_as_long_as_one_of_four(stack: str) -> None:
    def parts(grad_accum: int) -> tuple[Part, ...]:
        return forecast(replace(Scenario.load("llama-2-7b", stack=stack), grad_accum=grad_accum), "cuda").timeline.parts

    # two steps; beside the rounds only the tensors of the other micro-batches, taken and given back
    assert len(parts(16)) - len(parts(4)) == 2 * 12 * 2 * 2
    rounds = [part.times for part in parts(16) if isinstance(part, Repeat) and Enter(BACKWARD) in part.body]
    assert rounds == [14, 14]
