import pytest
from plans import held, small_scenario

from vramplan.oom.aim import Aim
from vramplan.oom.savings import lists, savings
from vramplan.plan.advice import Advice, advise
from vramplan.plan.limit import Limit
from vramplan.predict.forecast import ledger
from vramplan.units import MIB

RUN = small_scenario(batch=4, seq=512)


def names(found: tuple[Advice, ...]) -> list[list[str]]:
    return [[step.change.name for step in advice.steps] for advice in found]


@pytest.mark.parametrize(
    ("needed", "alone", "listed"),
    [
        (30 * MIB, ["loss", "micro-batch", "sequence"], [["loss"]]),
        (140 * MIB, ["micro-batch", "sequence"], [["micro-batch"]]),
        (160 * MIB, [], [["loss", "micro-batch"]]),
    ],
)
def test_single_changes_and_lists_are_judged_alike(needed: int, alone: list[str], listed: list[list[str]]) -> None:
    """In any room: what decides is whether the tensors shrink by what is needed."""
    aim = Aim(Limit(2 * held(RUN)), most=ledger(RUN).peak - needed)
    found = savings(RUN, aim)
    assert [saving.name for saving in found if saving.enough] == alone
    assert all((saving.saves >= needed) is saving.enough for saving in found)
    assert names(lists(RUN, aim)) == listed


def test_expandable_segments_alone_are_no_list() -> None:
    run = small_scenario(seq=256, eval={"batch": 4, "accumulate": 12})
    aim = Aim(Limit(920 * MIB), most=ledger(run).peak)
    assert names(advise(run, aim)) == [["expandable-segments"]]
    assert names(lists(run, aim)) == [["eval accumulate"]]


def test_expandable_segments_come_beside_others_where_nothing_else_is_enough() -> None:
    run = small_scenario(seq=256, stack="trl")
    peak = ledger(run).peak
    assert names(lists(run, Aim(Limit(peak), most=peak - 1))) == [["expandable-segments", "sequence"]]
