"""Repeats written out, and the ledger that never writes them out."""

from hypothesis import given, settings
from timelines import timelines

from vramplan.ledger import Basis, Component, Ledger, Phase
from vramplan.timeline import Alloc, EmptyCache, Enter, Event, Free, Repeat, Timeline

KEPT = Alloc(1, 100, Component.ACTIVATIONS, "layer input")
TEMPORARY = Alloc(2, 30, Component.WORKSPACE, "dequantised")
FORWARD = Repeat((KEPT, TEMPORARY, Free(2)), times=3)


def numbers(timeline: Timeline, kind: type[Event]) -> list[int]:
    return [event.block for event in timeline.events() if isinstance(event, kind)]


def test_every_round_of_a_repeat_has_blocks_of_its_own() -> None:
    timeline = Timeline((FORWARD,))
    assert numbers(timeline, Alloc) == [0, 1, 2, 3, 4, 5]
    assert numbers(timeline, Free) == [1, 3, 5]


def test_a_later_repeat_frees_the_block_of_its_own_round() -> None:
    # the layer inputs of rounds 0, 1, 2 have the numbers 0, 2, 4; the temporaries between are freed at once
    assert numbers(Timeline((FORWARD, Repeat((Free(1),), times=3))), Free) == [1, 3, 5, 0, 2, 4]


def test_a_reversed_repeat_frees_the_last_round_first() -> None:
    assert numbers(Timeline((FORWARD, Repeat((Free(1),), times=3, reverse=True))), Free) == [1, 3, 5, 4, 2, 0]


def test_nested_repeats_free_within_the_same_outer_round() -> None:
    layers = Repeat((KEPT,), times=2)
    undo = Repeat((Free(1),), times=2, reverse=True)
    timeline = Timeline((Repeat((layers, undo), times=2),))
    # micro-batch 0 allocates 0, 1 and frees 1, 0; micro-batch 1 allocates 2, 3 and frees 3, 2
    assert numbers(timeline, Free) == [1, 0, 3, 2]


def test_a_block_taken_again_after_its_free_is_another_block() -> None:
    again = Timeline((KEPT, TEMPORARY, Free(1), KEPT, Alloc(3, 1, Component.LOGITS, "")))
    assert numbers(again, Alloc) == [0, 1, 2, 3]


def test_phases_and_emptied_caches_stand_in_the_events_as_they_are() -> None:
    assert list(Timeline((Enter(Phase.LOSS), EmptyCache())).events()) == [Enter(Phase.LOSS), EmptyCache()]


def test_no_rounds_are_no_events() -> None:
    assert list(Timeline((Repeat((KEPT,), times=0),)).events()) == []


def test_the_high_water_mark_of_repeated_layers() -> None:
    # forward: three layer inputs of 100 and, in the last round, the temporary of 30
    # backward: a gradient of 50 beside the last input, so 3 x 100 + 50; then inputs go by 100 and gradients come by 50
    backward = Repeat((Alloc(3, 50, Component.GRADIENTS, "weight"), Free(1)), times=3, reverse=True)
    timeline = Timeline((Enter(Phase.FORWARD), FORWARD, Enter(Phase.BACKWARD), backward))
    ledger = timeline.ledger({Component.ACTIVATIONS: Basis.EXACT})
    assert ledger.allocated(Phase.FORWARD) == 3 * 100 + 30
    assert ledger.bytes(Phase.FORWARD, Component.WORKSPACE) == 30
    assert ledger.allocated(Phase.BACKWARD) == 3 * 100 + 50
    assert ledger.bytes(Phase.BACKWARD, Component.GRADIENTS) == 50
    assert ledger.steady == 3 * 50
    assert {entry.basis for entry in ledger.of(Phase.BACKWARD)} == {Basis.EXACT, Basis.MODELLED}


def test_a_round_that_begins_in_the_phase_where_the_last_one_ended() -> None:
    # Only round 1 holds 3 x 100 - 100 + 70 in BACKWARD before its first free: round 0 begins in FORWARD.
    body = (TEMPORARY._replace(bytes=70), Free(2), Free(1), Enter(Phase.BACKWARD))
    timeline = Timeline((Enter(Phase.FORWARD), FORWARD, Repeat(body, times=3)))
    assert timeline.ledger({}).allocated(Phase.BACKWARD) == 2 * 100 + 70


def test_granularity_rounds_every_block_up_and_says_by_how_much() -> None:
    # 100 -> 512 and 513 -> 1024: 412 + 511 bytes of rounding; an empty tensor takes nothing
    blocks = (KEPT, Alloc(2, 513, Component.WEIGHTS, ""), Alloc(3, 0, Component.WEIGHTS, ""))
    ledger = Timeline(blocks).ledger({}, granularity=512)
    assert ledger.bytes(Phase.LOAD, Component.ALLOCATOR) == 412 + 511
    assert ledger.bytes(Phase.LOAD, Component.ACTIVATIONS) == 100
    assert ledger.peak == ledger.steady == 512 + 1024


@settings(deadline=None)
@given(timelines())
def test_the_ledger_is_that_of_the_events(timeline: Timeline) -> None:
    for granularity in (1, 512):
        written_out = Timeline(tuple(timeline.events()))
        assert timeline.ledger({}, granularity=granularity) == written_out.ledger({}, granularity=granularity)


@settings(deadline=None)
@given(timelines())
def test_the_ledger_is_the_maximum_over_the_events(timeline: Timeline) -> None:
    # counted here in the plainest way: after every event, per phase
    sizes: dict[int, int] = {}
    highest: dict[Phase, int] = {}
    phase, held = Phase.LOAD, 0
    for event in timeline.events():
        if isinstance(event, Enter):
            phase = event.phase
        elif isinstance(event, Alloc):
            sizes[event.block] = event.bytes
            held += event.bytes
        elif isinstance(event, Free):
            held -= sizes.pop(event.block)
        highest[phase] = max(highest.get(phase, 0), held)
    ledger = timeline.ledger({})
    assert {p: ledger.allocated(p) for p in ledger.phases} == {p: size for p, size in highest.items() if size}
    assert ledger.steady == held


def test_an_empty_timeline_has_an_empty_ledger() -> None:
    assert Timeline(()).ledger({}) == Ledger((), steady=0)
