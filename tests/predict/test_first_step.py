"""The first step is a later one with the workspaces and the states where they are made."""

from vramplan.ledger import Component, Phase
from vramplan.predict.first_step import first_step
from vramplan.timeline import Alloc, Enter, Free


def block(number: int, label: str) -> Alloc:
    return Alloc(number, 512, Component.WORKSPACE, label)


def test_what_is_made_stands_where_it_is_made() -> None:
    hidden, gradient = block(1, "hidden"), block(2, "gradient")
    step = (Enter(Phase.FORWARD), hidden, Enter(Phase.BACKWARD), gradient, Free(1), Enter(Phase.STEP), Free(2))
    main, backward, state = block(-1, "main"), block(-2, "backward"), block(-3, "state")
    # the main thread's first product has its output before part 2, autograd's before part 4
    made = first_step(step, ((2, main), (4, backward)), (state,), None)
    assert made == (*step[:2], main, *step[2:4], backward, *step[4:6], state, *step[6:])


def test_states_are_made_once_gradients_are_clipped() -> None:
    norm, stacked, root = block(1, "gradient norm"), block(2, "gradient norms stacked"), block(3, "square roots")
    step = (Enter(Phase.STEP), norm, stacked, Free(1), Free(2), root, Free(3))
    state = block(-1, "state")
    assert first_step(step, (), (state,), clipped=2) == (*step[:5], state, *step[5:])


def test_a_generation_makes_no_states() -> None:
    step = (Enter(Phase.PREFILL), block(1, "hidden"), Enter(Phase.DECODE), Free(1))
    assert first_step(step, ((2, block(-1, "main")),), (), None) == (*step[:2], block(-1, "main"), *step[2:])
