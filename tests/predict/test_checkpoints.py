"""What a checkpointed layer forgets and when it runs again, by hand."""

from tape_events import events, leaf

from vramplan.predict.backward import run_backward
from vramplan.predict.checkpoints import run_checkpointed
from vramplan.predict.operations import pointwise, scale
from vramplan.predict.tape import FLOAT32, Tape, Tensor
from vramplan.scenario import Checkpointing


def test_a_checkpoint_keeps_its_input_and_stops_recomputing_at_the_last_saved_tensor() -> None:
    t = Tape("cuda")
    x = leaf(t)

    def layer(hidden: Tensor) -> Tensor:
        return scale(t, pointwise(t, scale(t, hidden, "a"), "b", saves="input"), "c")

    y = run_checkpointed(t, layer, x, Checkpointing.NON_REENTRANT)
    assert events(t) == ["+x", "+a", "+b", "-a", "+c", "-b"]
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    # c's backward needs nothing; b's asks for its input: `a` is made again, and neither b nor c is
    again = events(t)[6:]
    assert again[:5] == ["+g", "+c gradient", "-g", "+a", "+b gradient"]
    assert "+b" not in again
    assert "+c" not in again


def test_recomputation_keeps_nothing_for_what_went_nowhere() -> None:
    t = Tape("cuda")
    x = leaf(t)

    def layer(hidden: Tensor) -> Tensor:
        unused = pointwise(t, scale(t, hidden, "u"), "v", saves="input")
        del unused
        return pointwise(t, scale(t, hidden, "a"), "b", saves="input")

    y = run_checkpointed(t, layer, x, Checkpointing.NON_REENTRANT)
    before = len(events(t))
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    # `u` goes with what it was saved for, before `a` is there; nobody's backward will ask for it
    assert events(t)[before:][:6] == ["+g", "+u", "+v", "-u", "-v", "+a"]


def test_a_reentrant_checkpoint_runs_the_whole_layer_again() -> None:
    t = Tape("cuda")
    x = leaf(t)

    def layer(hidden: Tensor) -> Tensor:
        return scale(t, pointwise(t, scale(t, hidden, "a"), "b", saves="input"), "c")

    y = run_checkpointed(t, layer, x, Checkpointing.REENTRANT)
    assert events(t) == ["+x", "+a", "+b", "-a", "+c", "-b"]
    run_backward(t, y, t.new((4,), FLOAT32, "g"))
    assert events(t)[6:11] == ["+g", "+a", "+b", "+c", "-b"]
