"""The search for the shortest list, by rules that need no prediction: the scenario's keys say what fits."""

from collections.abc import Callable, Iterable
from itertools import combinations

import pytest
from plans import small_scenario

from vramplan.plan.shortest_list import Fits, applied, shortest_list
from vramplan.predict.changes import CHANGES
from vramplan.scenario import Checkpointing, Scenario
from vramplan.stacks import LossKernel, Outputs, Upcast

#: To which fifteen changes apply.
EVERYTHING = small_scenario(
    method="qlora",
    quant={"type": "nf4", "double": False},
    lora={"rank": 64, "dora": True, "modules_to_save": ["embed_tokens", "lm_head"]},
    batch=4,
    seq=512,
    optimizer="adamw_torch",
    checkpointing=False,
    attention="eager",
    stack={"base": "script", "outputs": "held-next"},
    gpu="rtx3090",
)
USEFUL = [change for change in CHANGES if change.variants(EVERYTHING)]

Rule = Callable[[Scenario], bool]


def checkpointed(scenario: Scenario) -> bool:
    return scenario.checkpointing is not Checkpointing.OFF


def fused(scenario: Scenario) -> bool:
    return scenario.stack.loss is LossKernel.LIGER


def freed(scenario: Scenario) -> bool:
    return scenario.stack.outputs is Outputs.FREED


def short(scenario: Scenario) -> bool:
    return scenario.seq < 256


def plain(scenario: Scenario) -> bool:
    return scenario.stack.upcast is Upcast.NONE and not scenario.lora.modules_to_save


RULES: dict[str, Rule] = {
    "one": checkpointed,
    "one of two": lambda scenario: fused(scenario) or short(scenario),
    "three": lambda scenario: checkpointed(scenario) and plain(scenario),
    "two of three, and one": lambda scenario: (
        checkpointed(scenario) + fused(scenario) + short(scenario) > 1 and freed(scenario)
    ),
    "five": lambda scenario: checkpointed(scenario) and plain(scenario) and fused(scenario) and short(scenario),
    "none": lambda scenario: False,
}


def by_trying_all(rule: Rule) -> list[str]:
    """Names of the first list that fits: by length, then by where its last change stands, then its last but one."""
    places = range(len(USEFUL))
    lists: Iterable[tuple[int, ...]] = (
        chosen
        for length in range(1, 6)
        for chosen in sorted(combinations(places, length), key=lambda indices: indices[::-1])
    )
    for chosen in lists:
        changed = applied(EVERYTHING, [USEFUL[i] for i in chosen])
        if changed is not None and rule(changed):
            return [USEFUL[i].name for i in chosen]
    return []


@pytest.mark.parametrize("name", RULES)
def test_no_list_is_shorter_or_cheaper_and_few_are_tried(name: str) -> None:
    rule, asked = RULES[name], list[Scenario]()

    def fits(scenario: Scenario) -> bool:
        asked.append(scenario)
        return rule(scenario)

    found = shortest_list(EVERYTHING, CHANGES, Fits(fits, fits), len(CHANGES))
    assert [change.name for change in found] == by_trying_all(rule)
    assert len(asked) < 250  # of 15 changes 4,943 lists have up to five


def test_no_longer_list_than_asked_for() -> None:
    five = Fits(RULES["five"], RULES["five"])
    assert shortest_list(EVERYTHING, CHANGES, five, 4) == ()
    assert len(shortest_list(EVERYTHING, CHANGES, five, 5)) == 5
