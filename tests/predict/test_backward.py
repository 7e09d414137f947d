"""The order in which backward makes gradients and lets go of what was saved, by hand."""

import gc

from tape_events import events, leaf

from vramplan.ledger import Component
from vramplan.predict.backward import run_backward
from vramplan.predict.operations import add, mul, pointwise, reshape, scale, split
from vramplan.predict.tape import FLOAT32, Tape
from vramplan.timeline import Alloc


def test_what_backward_needs_lives_until_its_node_has_run() -> None:
    t = Tape("cpu")
    x = leaf(t)
    y = pointwise(t, scale(t, x, "a"), "b", saves="input")
    assert events(t) == ["+x", "+a", "+b"]  # `a` is saved by `b`
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    assert events(t)[3:] == ["+g", "+b gradient", "-g", "-a", "+a gradient", "-b gradient"]


def test_gradients_that_meet_are_added_in_place_into_the_one_that_nobody_else_holds() -> None:
    t = Tape("cpu")
    x = leaf(t)
    y = add(t, scale(t, x, "a"), scale(t, x, "b"), "y")
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    # both branches make a gradient of their own; the first takes the second in, so no sum is allocated
    assert "+sum of gradients" not in events(t)


def test_a_view_is_not_added_into_because_its_base_holds_the_storage() -> None:
    t = Tape("cpu")
    x = leaf(t)
    y = add(t, scale(t, x, "a"), reshape(t, reshape(t, scale(t, x, "b"), (2, 2)), (4,)), "y")
    z = reshape(t, reshape(t, x, (2, 2)), (4,))
    run_backward(t, add(t, y, z, "z"), t.new((4,), FLOAT32, "g"))
    # z was made last, so its gradient, a view, comes first; the next one meets the sum, which is nobody's view
    assert events(t).count("+sum of gradients") == 1


def test_a_gradient_that_another_node_still_waits_for_is_not_added_into() -> None:
    t = Tape("cpu")
    x = leaf(t)
    inner = add(t, scale(t, x, "early"), scale(t, x, "late"), "inner")
    y = add(t, inner, x, "y")
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    # x gets g itself and holds it while `early` waits for the same g: late's gradient cannot be added into it
    assert events(t).count("+sum of gradients") == 1


def test_the_first_gradient_of_a_parameter_becomes_its_gradient_as_it_is() -> None:
    t = Tape("cpu")
    w = t.parameter((4,), FLOAT32, trained=True)
    x = t.new((4,), FLOAT32, "x")
    run_backward(t, mul(t, x, w, "y"), t.new((4,), FLOAT32, "g"))
    parts = t.script.template(1, 1).parts(1, 1)
    gradients = [part for part in parts if isinstance(part, Alloc) and part.component is Component.GRADIENTS]
    assert [(part.bytes, part.label) for part in gradients] == [(16, "product gradient float32 [4]")]


def test_what_no_gradient_reaches_dies_with_its_last_output() -> None:
    t = Tape("cpu")
    x = leaf(t)
    gc.disable()
    try:
        y = pointwise(t, scale(t, x, "a"), "b", saves="result")  # the node holds the result, which knows the node
        del y
        assert events(t) == ["+x", "+a", "+b", "-a", "-b"]
    finally:
        gc.enable()


def test_a_node_that_no_gradient_comes_to_computes_nothing() -> None:
    t = Tape("cpu")
    x = leaf(t)
    inner = scale(t, x, "a")
    y = t.record(t.new((4,), FLOAT32, "y"), (inner, x), [], lambda saved, grad: (None, grad))
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    assert "+a gradient" not in events(t)


def test_a_split_of_which_no_piece_gets_a_gradient_computes_nothing() -> None:
    t = Tape("cpu")
    x = leaf(t)
    first, _ = split(t, x, [2, 2])
    y = t.record(t.new((4,), FLOAT32, "y"), (first, x), [], lambda saved, grad: (None, grad))
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    assert "+split gradient" not in events(t)
