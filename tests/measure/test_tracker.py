"""The tracker on a few real operations, counted by hand."""

import torch
from torch import nn

from vramplan.ledger import Component, Phase
from vramplan.measure.tracker import Tracker
from vramplan.timeline import Alloc, Enter, Free

VOCAB = 1000


def sizes(tracker: Tracker) -> list[int]:
    """+bytes for every allocation, -bytes for every free, in order."""
    blocks: dict[int, int] = {}
    changes = []
    for event in tracker.timeline().events():
        if isinstance(event, Alloc):
            blocks[event.block] = event.bytes
            changes.append(event.bytes)
        elif isinstance(event, Free):
            changes.append(-blocks[event.block])
    return changes


def test_a_storage_is_born_once_and_dies_with_its_last_view() -> None:
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        whole = torch.zeros(16, 4)  # 16 x 4 x 4 B
        part = whole[:2].t()
        del whole
        copy = part.clone()  # 2 x 4 x 4 B
        del part, copy
    assert sizes(tracker) == [256, 32, -256, -32]


def test_a_storage_resized_in_place_is_another_block() -> None:
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        tensor = torch.zeros(4)
        tensor.resize_(16)
        del tensor
    assert sizes(tracker) == [16, -16, 64, -64]


def test_nothing_is_noted_after_the_run() -> None:
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        tensor = torch.zeros(4)
    del tensor
    assert sizes(tracker) == [16]


def test_gradients_are_summed_in_place_as_they_are_unwatched() -> None:
    # x is used three times, so that the engine adds three gradients of 400 B. Unwatched it adds into the first one: the
    # sums take nothing. Under the mode each sum is out of place, and is a third buffer for a moment.
    x = torch.ones(100, requires_grad=True)
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        loss = (x * 2 + x * 3 + x * 4).sum()
        before = len(sizes(tracker))
        loss.backward()
    # one, two, the second added into the first and gone, the third likewise; the first one stays as x.grad
    assert [change for change in sizes(tracker)[before:] if abs(change) == 400] == [400, 400, -400, 400, -400]


def test_a_sum_whose_terms_live_on_is_a_block_of_its_own() -> None:
    x = torch.ones(100, requires_grad=True)
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        doubled, tripled = x * 2, x * 3
        doubled.retain_grad()  # somebody else holds the engine's buffer
        loss = (doubled * 2 + doubled * tripled).sum()
        before = len(sizes(tracker))
        loss.backward()
    assert doubled.grad is not None
    assert sizes(tracker)[before:].count(400) > 3


def test_attribution_by_name_by_logits_and_by_lifetime() -> None:
    layer = nn.Linear(8, 8, bias=False)
    head = nn.Linear(8, VOCAB, bias=False)
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        tracker.name(layer.weight, Component.WEIGHTS, "layer")
        tracker.enter(Phase.FORWARD)
        hidden = layer(torch.ones(4, 8)).relu()
        tracker.enter(Phase.LOSS)
        loss = head(hidden).logsumexp(-1).sum()
        tracker.enter(Phase.BACKWARD)
        loss.backward()
        tracker.name(layer.weight.grad, Component.GRADIENTS, "layer.grad")
    found = {event.label: event.component for event in tracker.timeline().events() if isinstance(event, Alloc)}
    assert found["layer"] is Component.WEIGHTS
    assert found["layer.grad"] is Component.GRADIENTS
    assert found["relu [4, 8] float32"] is Component.ACTIVATIONS
    assert found["mm [4, 1000] float32"] is Component.LOGITS


def test_phases_are_entered_in_order() -> None:
    tracker = Tracker(vocab=VOCAB)
    with tracker:
        tracker.enter(Phase.FORWARD)
        tracker.enter(Phase.BACKWARD)
    assert list(tracker.timeline().events()) == [Enter(Phase.FORWARD), Enter(Phase.BACKWARD)]


def test_an_operation_is_placed_in_its_module_forward_and_backward() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.body["layers"]:
                x = layer(x)
            return x

    tracker = Tracker(vocab=VOCAB)
    with tracker:
        Net()(torch.ones(2, 4)).sum().backward()
    places = {(block.place.module, block.place.node, block.place.layer) for block in tracker.blocks}
    assert ("body.layers.1", "", 1) in places
    assert ("body.layers.0", "AddmmBackward0", 0) in places
