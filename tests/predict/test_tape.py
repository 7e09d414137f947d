"""Lifetimes on the tape, by hand; every float32 tensor of four elements is 16 bytes."""

from vramplan.ledger import Component, Phase
from vramplan.predict.checkpoints import run_checkpointed
from vramplan.predict.operations import add, mul, pointwise, reshape, scale
from vramplan.predict.tape import FLOAT32, Tape, Tensor
from vramplan.predict.tape_parts import Group
from vramplan.scenario import Checkpointing
from vramplan.timeline import Alloc, Free, Timeline


def events(t: Tape) -> list[str]:
    """`+label` for an allocation, `-label` for its free, in order."""
    labels: dict[int, str] = {}
    seen = []
    for event in Timeline(t.script.template(1, 1).parts(1, 1)).events():
        if isinstance(event, Alloc):
            labels[event.block] = event.label.partition(" float32")[0]
            seen.append("+" + labels[event.block])
        elif isinstance(event, Free):
            seen.append("-" + labels[event.block])
    return seen


def leaf(t: Tape, label: str = "x") -> Tensor:
    x = t.new((4,), FLOAT32, label)
    t.require_grad(x)
    return x


def test_a_storage_is_given_back_with_its_last_view() -> None:
    t = Tape("cpu")
    x = t.new((4,), FLOAT32, "x")
    view = t.view(x, (2, 2))
    del x
    assert events(t) == ["+x"]
    del view
    assert events(t) == ["+x", "-x"]


def test_what_backward_needs_lives_until_its_node_has_run() -> None:
    t = Tape("cpu")
    x = leaf(t)
    y = pointwise(t, scale(t, x, "a"), "b", saves="input")
    assert events(t) == ["+x", "+a", "+b"]  # `a` is saved by `b`
    t.backward(y, t.new((4,), FLOAT32, "g"))
    assert events(t)[3:] == ["+g", "+b gradient", "-g", "-a", "+a gradient", "-b gradient"]


def test_gradients_that_meet_are_added_in_place_into_the_one_that_nobody_else_holds() -> None:
    t = Tape("cpu")
    x = leaf(t)
    y = add(t, scale(t, x, "a"), scale(t, x, "b"), "y")
    t.backward(y, t.new((4,), FLOAT32, "g"))
    # both branches make a gradient of their own; the first takes the second in, so no sum is allocated
    assert "+sum of gradients" not in events(t)


def test_a_view_is_not_added_into_because_its_base_holds_the_storage() -> None:
    t = Tape("cpu")
    x = leaf(t)
    y = add(t, scale(t, x, "a"), reshape(t, reshape(t, scale(t, x, "b"), (2, 2)), (4,)), "y")
    z = reshape(t, reshape(t, x, (2, 2)), (4,))
    t.backward(add(t, y, z, "z"), t.new((4,), FLOAT32, "g"))
    # z was made last, so its gradient, a view, comes first; the next one meets the sum, which is nobody's view
    assert events(t).count("+sum of gradients") == 1


def test_a_gradient_that_another_node_still_waits_for_is_not_added_into() -> None:
    t = Tape("cpu")
    x = leaf(t)
    inner = add(t, scale(t, x, "early"), scale(t, x, "late"), "inner")
    y = add(t, inner, x, "y")
    t.backward(y, t.new((4,), FLOAT32, "g"))
    # x gets g itself and holds it while `early` waits for the same g: late's gradient cannot be added into it
    assert events(t).count("+sum of gradients") == 1


def test_the_first_gradient_of_a_parameter_becomes_its_gradient_as_it_is() -> None:
    t = Tape("cpu")
    w = t.parameter((4,), FLOAT32, trained=True)
    x = t.new((4,), FLOAT32, "x")
    t.backward(mul(t, x, w, "y"), t.new((4,), FLOAT32, "g"))
    parts = t.script.template(1, 1).parts(1, 1)
    gradients = [part for part in parts if isinstance(part, Alloc) and part.component is Component.GRADIENTS]
    assert [(part.bytes, part.label) for part in gradients] == [(16, "product gradient float32 [4]")]


def test_a_checkpoint_keeps_its_input_and_stops_recomputing_at_the_last_saved_tensor() -> None:
    t = Tape("cuda")
    x = leaf(t)

    def layer(hidden: Tensor) -> Tensor:
        return scale(t, pointwise(t, scale(t, hidden, "a"), "b", saves="input"), "c")

    y = run_checkpointed(t, layer, x, Checkpointing.NON_REENTRANT)
    assert events(t) == ["+x", "+a", "+b", "-a", "+c", "-b"]
    t.backward(y, t.new((4,), FLOAT32, "g"))
    # c's backward needs nothing; b's asks for its input: `a` is made again, and neither b nor c is
    again = events(t)[6:]
    assert again[:5] == ["+g", "+c gradient", "-g", "+a", "+b gradient"]
    assert "+b" not in again
    assert "+c" not in again


def test_a_reentrant_checkpoint_runs_the_whole_layer_again() -> None:
    t = Tape("cuda")
    x = leaf(t)

    def layer(hidden: Tensor) -> Tensor:
        return scale(t, pointwise(t, scale(t, hidden, "a"), "b", saves="input"), "c")

    y = run_checkpointed(t, layer, x, Checkpointing.REENTRANT)
    assert events(t) == ["+x", "+a", "+b", "-a", "+c", "-b"]
    t.backward(y, t.new((4,), FLOAT32, "g"))
    assert events(t)[6:11] == ["+g", "+a", "+b", "+c", "-b"]


def test_repeated_layers_hold_what_written_out_layers_hold() -> None:
    def peak(groups: list[int]) -> int:
        t = Tape("cuda")
        t.enter(Phase.FORWARD)
        x = leaf(t)
        for times in groups:
            group = Group(times)
            x = t.open(group, x)
            x = pointwise(t, scale(t, x, "a"), "b", saves="input")
            x = t.close(group, x)
        t.enter(Phase.BACKWARD)
        t.backward(x, t.new((4,), FLOAT32, "g"))
        del x
        return Timeline(t.script.template(1, 1).parts(1, 1)).ledger({}).peak

    # six layers, each of which keeps `a`: one by one, or the five behind the first as one group
    assert peak([1, 5]) == peak([1] * 6)
