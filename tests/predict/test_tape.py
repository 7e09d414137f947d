"""Lifetimes on the tape, by hand."""

from tape_events import events, leaf

from vramplan.catalog.gpus import REFERENCE_GPU, gpu
from vramplan.ledger import Phase
from vramplan.predict.backward import run_backward
from vramplan.predict.operations import pointwise, scale
from vramplan.predict.script import Repeated
from vramplan.predict.tape import FLOAT32, Tape
from vramplan.timeline import Timeline


def test_without_a_card_it_is_that_of_the_trace() -> None:
    card = gpu(REFERENCE_GPU)
    assert (Tape("cuda").capability, Tape("cuda").processors) == (card.capability, card.multiprocessors)


def test_a_storage_is_given_back_with_its_last_view() -> None:
    t = Tape("cpu")
    x = t.new((4,), FLOAT32, "x")
    view = t.view(x, (2, 2))
    del x
    assert events(t) == ["+x"]
    del view
    assert events(t) == ["+x", "-x"]


def test_repeated_layers_hold_what_written_out_layers_hold() -> None:
    def peak(groups: list[int]) -> int:
        t = Tape("cuda")
        t.enter(Phase.FORWARD)
        x = leaf(t)
        for times in groups:
            group = Repeated(times)
            x = t.open(group, x)
            x = pointwise(t, scale(t, x, "a"), "b", saves="input")
            x = t.close(group, x)
        t.enter(Phase.BACKWARD)
        run_backward(t, x, t.new((4,), FLOAT32, "g"))
        del x
        return Timeline(t.script.template(1, 1).parts(1, 1)).ledger({}).peak

    # six layers, each of which keeps `a`: one by one, or the five behind the first as one group
    assert peak([1, 5]) == peak([1] * 6)
