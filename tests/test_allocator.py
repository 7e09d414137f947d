"""The replay against sequences worked out by hand, against the algorithm written down literally, and its invariants."""

import sys
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_allocator import Block, DeviceCachingAllocator, OutOfMemoryError
from timelines import timelines

from vramplan.allocator import Composition, Growth, Program, Replay, Rules, prepare, replay
from vramplan.ledger import Basis, Component, Phase
from vramplan.predict.forecast import forecast
from vramplan.scenario import Scenario
from vramplan.timeline import Alloc, EmptyCache, Enter, Event, Free, Part, Repeat, Timeline

MIB = 2**20
BUDGETS = st.one_of(st.none(), st.integers(1, 200).map(lambda mib: mib * MIB))


def take(block: int, size: int) -> Alloc:
    return Alloc(block, size, Component.ACTIVATIONS, f"block {block}")


def run(*parts: Event | Repeat, budget: int | None = None, expandable_segments: bool = False) -> Replay:
    return replay(prepare(parts, rules=Rules(expandable_segments=expandable_segments)), budget=budget)


def unlabelled(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(
        part._replace(label="")
        if isinstance(part, Alloc)
        else part._replace(body=unlabelled(part.body))
        if isinstance(part, Repeat)
        else part
        for part in parts
    )


def moment(*parts: Event | Repeat) -> Composition:
    return run(*parts).peak.moment


# -- segments and splitting --


def test_small_requests_share_a_segment_of_2_mib() -> None:
    # 1,000 B -> 1,024 B; 1 B -> 512 B; both from one 2 MiB segment, the rest of it cached in one piece
    found = moment(take(1, 1000), take(2, 1))
    assert found == Composition(raw=1001, rounding=24 + 511, unsplit=0, cached=2 * MIB - 1536)


def test_1_mib_is_small_and_a_byte_more_is_large() -> None:
    assert run(take(1, MIB)).reserved == 2 * MIB
    assert run(take(1, MIB + 1)).reserved == 20 * MIB


def test_below_10_mib_a_segment_has_20_mib() -> None:
    # 9 + 9 MiB fit into one segment of 20; the remaining 2 MiB stay cached
    assert moment(take(1, 9 * MIB), take(2, 9 * MIB)).cached == 2 * MIB
    # a third one needs a segment of its own
    assert run(take(1, 9 * MIB), take(2, 9 * MIB), take(3, 9 * MIB)).reserved == 40 * MIB


def test_from_10_mib_on_a_segment_is_the_request_rounded_up_to_2_mib() -> None:
    assert run(take(1, 10 * MIB)).reserved == 10 * MIB
    assert run(take(1, 11 * MIB)).reserved == 12 * MIB
    # rounding of 512 B comes first: 12 MiB + 1 B -> 12 MiB + 512 B -> 14 MiB
    assert run(take(1, 12 * MIB + 1)).reserved == 14 * MIB


def test_a_large_remainder_of_1_mib_or_less_is_not_split_off_and_counts_as_allocated() -> None:
    # 11 MiB in a segment of 12: the remainder of 1 MiB belongs to the block
    assert moment(take(1, 11 * MIB)) == Composition(raw=11 * MIB, rounding=0, unsplit=MIB, cached=0)
    # 512 B less in the block, and the remainder is 1 MiB + 512 B: split off
    assert moment(take(1, 11 * MIB - 512)).cached == MIB + 512
    assert moment(take(1, 11 * MIB - 512)).unsplit == 0


def test_a_small_remainder_is_split_down_to_512_bytes() -> None:
    # four blocks fill 2 MiB but for 512 B, which is a block: the next 512 B need no new segment
    blocks = (take(1, MIB), take(2, MIB - 1024), take(3, 512))
    assert moment(*blocks).cached == 512
    assert run(*blocks, take(4, 512)).reserved == 2 * MIB
    assert run(*blocks, take(4, 513)).reserved == 4 * MIB


def test_an_empty_tensor_takes_nothing() -> None:
    assert run(take(1, 0), Free(1)) == Replay((), 0, (), 0, 0, None)


# -- best fit, merging --


def test_the_smallest_sufficient_block_is_taken() -> None:
    # Free: 40 and 30 MiB. 28 MiB go into the 30 (2 MiB are split off), so that 40 MiB still fit without a new segment.
    parts = (take(1, 40 * MIB), take(2, 30 * MIB), Free(1), Free(2), take(3, 28 * MIB), take(4, 40 * MIB))
    assert run(*parts).reserved == 70 * MIB


def test_of_two_blocks_of_one_size_the_lower_address_is_taken() -> None:
    # Two segments of 20 MiB, free; 4 MiB are cut from the first, leaving 16 there and 20 whole in the second,
    # which therefore alone can be given back.
    parts = (take(1, 20 * MIB), take(2, 20 * MIB), Free(2), Free(1), take(3, 4 * MIB), EmptyCache())
    assert run(*parts).growth == (Growth(0, 20 * MIB), Growth(1, 40 * MIB), Growth(5, 20 * MIB))


def test_neighbours_merge_when_freed() -> None:
    # 6 + 6 + 6 MiB in a segment of 20; freed in any order they and the rest of 2 MiB are one block of 20 again
    parts = (take(1, 6 * MIB), take(2, 6 * MIB), take(3, 6 * MIB))
    for order in ((1, 2, 3), (2, 1, 3), (3, 1, 2), (1, 3, 2)):
        assert run(*parts, *map(Free, order), take(4, 20 * MIB)).reserved == 20 * MIB


def test_separated_free_blocks_do_not_merge() -> None:
    # 6 + 6 + 6 MiB in a segment of 20; with the middle one in use the free pieces are 6 and 6 + 2 MiB
    parts = (take(1, 6 * MIB), take(2, 6 * MIB), take(3, 6 * MIB), Free(1), Free(3))
    assert run(*parts, take(4, 8 * MIB)).reserved == 20 * MIB
    assert run(*parts, take(4, 8 * MIB + 1)).reserved == 40 * MIB


def test_the_pools_do_not_share() -> None:
    # 20 MiB cached in the large pool serve no small request
    assert run(take(1, 20 * MIB), Free(1), take(2, MIB)).reserved == 22 * MIB


def test_what_is_free_in_either_pool_is_cached() -> None:
    # free: 6 and 8 MiB of a segment of 20 when 1 KiB, in a segment of its own pool, makes the peak
    parts = (take(1, 6 * MIB), take(2, 6 * MIB), take(3, 6 * MIB), Free(1), Free(3), Enter(Phase.STEP), take(4, 1024))
    step = next(mark for mark in run(*parts).marks if mark.phase is Phase.STEP)
    assert step.moment.cached == 14 * MIB + 2 * MIB - 1024


# -- phases --


def test_allocated_is_per_phase_and_reserved_runs_on() -> None:
    parts = (
        take(1, 30 * MIB), Free(1), Enter(Phase.FORWARD), take(2, 10 * MIB), Enter(Phase.BACKWARD), take(3, 21 * MIB)
    )  # fmt: skip
    result = run(*parts)
    assert [(m.phase, m.allocated, m.reserved) for m in result.marks] == [
        (Phase.LOAD, 30 * MIB, 30 * MIB),
        (Phase.FORWARD, 10 * MIB, 30 * MIB),  # cut from the cached 30 MiB
        # 21 MiB do not fit into the remaining 20: a segment of 22, of which 1 MiB is not split off
        (Phase.BACKWARD, 10 * MIB + 22 * MIB, 52 * MIB),
    ]
    assert result.peak.phase is Phase.BACKWARD
    assert result.steady == 32 * MIB


def test_the_ledger_puts_rounding_and_unsplit_remainders_under_allocator() -> None:
    # 11 MiB + 1 B: rounded by 511 B; segment of 12 MiB, so 1 MiB - 512 B stay unsplit
    ledger = run(take(1, 11 * MIB + 1)).ledger({Component.ACTIVATIONS: Basis.TRACED})
    assert ledger.bytes(Phase.LOAD, Component.ACTIVATIONS) == 11 * MIB + 1
    assert ledger.bytes(Phase.LOAD, Component.ALLOCATOR) == 511 + MIB - 512
    assert ledger.peak == ledger.steady == 12 * MIB


# -- giving back, budget --


def test_empty_cache_gives_back_segments_without_a_block_in_use() -> None:
    # the 20 MiB segment holds block 2, so it stays whole; the 30 MiB segment goes
    parts = (take(1, 9 * MIB), take(2, 9 * MIB), take(3, 30 * MIB), Free(1), Free(3), EmptyCache())
    assert run(*parts).growth[-1] == Growth(5, 20 * MIB)


def test_a_request_above_the_budget_first_gives_cached_segments_back() -> None:
    # 30 cached + 40 asked > 60, so the 30 go: 40 reserved at the end, one retry, two cudaMalloc that succeeded
    result = run(take(1, 30 * MIB), Free(1), take(2, 40 * MIB), budget=60 * MIB)
    assert result.oom is None
    assert result.growth == (Growth(0, 30 * MIB), Growth(2, 40 * MIB))
    assert (result.retries, result.driver_calls, result.reserved) == (1, 2, 40 * MIB)


def test_what_cannot_be_given_back_is_an_out_of_memory() -> None:
    # 9 MiB in use keep their 20 MiB segment; 20 + 41 rounded up to 42 > 60
    parts = (take(1, 9 * MIB), Enter(Phase.LOSS), Alloc(2, 41 * MIB, Component.LOGITS, "logits"), take(3, 1))
    oom = run(*parts, budget=60 * MIB).oom
    assert oom is not None
    assert (oom.phase, oom.label, oom.component) == (Phase.LOSS, "logits", Component.LOGITS)
    assert (oom.requested, oom.segment, oom.budget) == (41 * MIB, 42 * MIB, 60 * MIB)
    assert (oom.allocated, oom.reserved) == (9 * MIB, 20 * MIB)
    assert run(*parts, budget=62 * MIB + 2 * MIB).oom is None


# -- expandable segments --


def test_an_expandable_segment_grows_by_pages_of_20_mib() -> None:
    # 30 MiB need two pages; 10 MiB more fit into the second
    assert run(take(1, 30 * MIB), take(2, 10 * MIB), expandable_segments=True).growth == (Growth(0, 40 * MIB),)


def test_what_an_expandable_segment_lacked_is_whole_pages() -> None:
    # 30 MiB hold two pages; 15 MiB find 10 free in the second, and one page more is over the budget
    oom = run(take(1, 30 * MIB), take(2, 15 * MIB), budget=50 * MIB, expandable_segments=True).oom
    assert oom is not None
    assert (oom.requested, oom.segment, oom.reserved) == (15 * MIB, 20 * MIB, 40 * MIB)


def test_an_expandable_segment_has_no_unsplit_remainder() -> None:
    assert run(take(1, 11 * MIB), expandable_segments=True).peak.moment.unsplit == 0


def test_a_free_block_at_the_end_of_an_expandable_segment_grows() -> None:
    # 30 MiB free in 40 mapped; 50 MiB take all of it and one page more. Without, 50 MiB stand beside the cached 30.
    parts = (take(1, 30 * MIB), Free(1), take(2, 50 * MIB))
    assert run(*parts, expandable_segments=True).reserved == 60 * MIB
    assert run(*parts).reserved == 80 * MIB


def test_empty_cache_unmaps_the_pages_that_no_block_touches() -> None:
    # 70 MiB, then 5: pages 0 to 3, 75 MiB used of 80. Block 1 freed leaves pages 0, 1, 2 free, page 3 touched.
    parts = (take(1, 70 * MIB), take(2, 5 * MIB), Free(1), EmptyCache())
    assert run(*parts, expandable_segments=True).growth[-1] == Growth(3, 20 * MIB)
    # 30 MiB fit neither the 10 MiB left of page 3 before block 2 nor the 5 after it: pages 0, 1 are mapped again
    assert run(*parts, take(3, 30 * MIB), expandable_segments=True).growth[-1] == Growth(4, 60 * MIB)


# -- repeats --


def test_every_layer_leaves_its_input_in_a_segment_of_its_own() -> None:
    # the temporary of 40 MiB is always the same segment; each of the layers leaves 12 MiB in a new one
    layer = (take(2, 40 * MIB), take(1, 12 * MIB), Free(2))
    result = run(Enter(Phase.FORWARD), Repeat(layer, times=126), Repeat((Free(1),), times=126, reverse=True))
    assert result.peak.allocated == result.peak.reserved == 126 * 12 * MIB + 40 * MIB
    assert result.steady == 0


@pytest.mark.parametrize("round_", [(Free(1), take(2, 12 * MIB)), (take(2, 12 * MIB), Free(1))])
def test_rounds_that_free_what_others_took_are_all_run(round_: tuple[Event, ...]) -> None:
    # before every round the same is free, but each leaves a block of its own, which a later repeat frees
    result = run(Repeat((take(1, 12 * MIB),), times=9), Repeat(round_, times=9), Repeat((Free(2),), times=9))
    assert result.steady == 0
    assert result.peak.allocated == 9 * 12 * MIB + (12 * MIB if isinstance(round_[0], Alloc) else 0)


def test_rounds_that_change_nothing_more_are_not_run() -> None:
    # a billion rounds would not end
    result = run(Repeat((take(1, 40 * MIB), take(2, 12 * MIB), Free(1), Free(2)), times=10**9))
    assert result.growth == (Growth(0, 40 * MIB), Growth(1, 52 * MIB))


def test_rounds_inside_rounds_that_change_nothing_are_not_run_either() -> None:
    # a micro-batch: what its layers keep its backward gives back
    layers = Repeat((take(1, 12 * MIB),), times=9), Repeat((Free(1),), times=9, reverse=True)
    result = run(Repeat((take(2, 40 * MIB), *layers, Free(2)), times=10**9))
    assert (result.reserved, result.driver_calls, result.steady) == (148 * MIB, 10, 0)


def test_a_round_that_begins_in_another_phase_is_run() -> None:
    result = run(Enter(Phase.FORWARD), Repeat((take(1, 40 * MIB), Free(1), Enter(Phase.BACKWARD)), times=9))
    assert [mark.allocated for mark in result.marks] == [40 * MIB, 40 * MIB]


@pytest.mark.parametrize(("label", "reserved"), [("hidden", 100 * MIB), ("", 60 * MIB)])
def test_what_rounds_hand_over_stays_where_it_is(label: str, reserved: int) -> None:
    # 20 MiB free, and 20 of 40 in use: given back and taken again they would move into the free ones
    def hidden(block: int) -> Alloc:
        return Alloc(block, 20 * MIB, Component.ACTIVATIONS, label)

    begin = (take(5, 20 * MIB), take(0, 40 * MIB), Free(0), hidden(1), Free(5))
    rounds = (Free(1), Repeat((hidden(2), hidden(3), Free(2), Free(3)), times=4), hidden(4))
    assert run(*begin, *rounds, take(6, 40 * MIB)).reserved == reserved


def test_what_was_prepared_is_replayed_as_often_as_wanted() -> None:
    parts = (Repeat((take(1, 12 * MIB), take(2, 40 * MIB), Free(2)), times=9), Repeat((Free(1),), times=9))
    program = prepare(parts)
    for budget in (None, 100 * MIB, None):
        assert replay(program, budget=budget) == replay(parts, budget=budget)


def test_of_blocks_of_one_size_that_in_the_oldest_or_in_the_youngest_segment_is_taken() -> None:
    # a segment of 64 MiB holds blocks 1 and 2 of 32, another one block 3; 1 and 3 are free when block 4 of 20 comes
    parts = [take(0, 64 * MIB), Free(0), take(1, 32 * MIB), take(2, 32 * MIB), take(3, 32 * MIB), Free(1), Free(3)]
    # and once 2 is free as well, block 5 of 64 wants the first segment whole
    parts += [take(4, 20 * MIB), Free(2), take(5, 64 * MIB)]
    assert replay(prepare(parts)).reserved == (64 + 32 + 64) * MIB  # 4 lies in the first: a third segment
    assert replay(prepare(parts, rules=Rules(youngest_first=True))).reserved == (64 + 32) * MIB  # 4 lies in the second


# -- properties --


def played(parts: Iterable[Part], rules: Rules, budget: int | None = None) -> Replay:
    return replay(prepare(parts, rules=rules), budget=budget)


ALL_RULES = [Rules(), Rules(youngest_first=True), Rules(expandable_segments=True)]
RULES = st.sampled_from(ALL_RULES)


def literal(timeline: Timeline, budget: int | None, rules: Rules) -> tuple[list[tuple[int, int, int]], bool, int]:
    """(event, allocated, reserved) after every event, whether memory ran out, and how often the cache was emptied."""
    allocator = DeviceCachingAllocator(budget, rules.expandable_segments, falling=rules.youngest_first)
    blocks: dict[int, Block] = {}
    states = []
    for i, event in enumerate(timeline.events()):
        if isinstance(event, Alloc) and event.bytes:
            try:
                blocks[event.block] = allocator.malloc(event.bytes)
            except OutOfMemoryError:
                return states, True, allocator.num_alloc_retries
            assert_no_overlap(allocator)
        elif isinstance(event, Free) and event.block in blocks:
            allocator.free(blocks.pop(event.block))
        elif isinstance(event, EmptyCache):
            allocator.release_cached_blocks()
        states.append((i, allocator.allocated_bytes, allocator.total_allocated_memory))
    return states, False, allocator.num_alloc_retries


def assert_no_overlap(allocator: DeviceCachingAllocator) -> None:
    spans = sorted((block.ptr, block.ptr + block.size) for block in allocator.live)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@settings(deadline=None, max_examples=300)
@given(timelines(times=3), BUDGETS, RULES)
def test_the_replay_is_the_algorithm_written_down_literally(
    timeline: Timeline, budget: int | None, rules: Rules
) -> None:
    states, ran_out, retries = literal(timeline, budget, rules)
    result = played(timeline.events(), rules, budget)
    assert (result.oom is not None) == ran_out
    assert result.retries == retries
    changes = [
        (i, now) for (i, _, now), (_, _, then) in zip(states, [(-1, 0, 0), *states], strict=False) if now != then
    ]
    assert [tuple(growth) for growth in result.growth] == changes
    assert max((mark.allocated for mark in result.marks), default=0) == max((held for _, held, _ in states), default=0)
    if not ran_out:
        assert result.steady == (states[-1][1] if states else 0)


def test_a_phase_of_skipped_rounds_reserves_what_was_reserved_before_it() -> None:
    kept = tuple(Alloc(block, 2**20, Component.WEIGHTS, "kept") for block in (0, 1))
    rounds = Repeat((Enter(Phase.FORWARD), Enter(Phase.LOSS), *kept), 6)
    result = replay((rounds,))
    # each round's loss takes a segment of 2 MiB: the last forward finds those of five rounds, of which two were run
    assert {mark.phase: mark.reserved for mark in result.marks} == {Phase.FORWARD: 5 * 2**21, Phase.LOSS: 6 * 2**21}
    assert result == replay(Timeline((rounds,)).events())


@settings(deadline=None, max_examples=300)
@given(timelines(times=8), BUDGETS, RULES)
def test_repeats_are_replayed_as_their_events_would_be(timeline: Timeline, budget: int | None, rules: Rules) -> None:
    assert played(timeline.parts, rules, budget) == played(timeline.events(), rules, budget)


@settings(deadline=None, max_examples=200)
@given(timelines(), st.integers(0, 9), st.lists(BUDGETS, max_size=3), RULES)
def test_what_goes_on_after_another_program_is_replayed_as_if_written_in_one(
    timeline: Timeline, cut: int, budgets: list[int | None], rules: Rules
) -> None:
    # the beginning is replayed for the first of them and copied for the others
    program = prepare(timeline.parts[cut:], prepare(timeline.parts[:cut], rules=rules))
    for budget in (None, *budgets, None):
        whole = played(timeline.parts, rules, budget)
        assert replay(program, budget=budget) == whole


@settings(deadline=None)
@given(timelines(), RULES)
def test_what_holds_of_every_replay(timeline: Timeline, rules: Rules) -> None:
    result = played(timeline.parts, rules)
    rounded = timeline.ledger({}, granularity=512)
    assert {mark.phase for mark in result.marks} == set(rounded.phases)
    for mark in result.marks:
        assert mark.reserved >= mark.moment.reserved >= mark.allocated >= rounded.allocated(mark.phase)
        assert sum(size for _, size in mark.held) == mark.allocated
        assert min(mark.moment.unsplit, mark.moment.rounding, mark.moment.cached) >= 0
    assert result.ledger({}).steady == result.steady >= rounded.steady
    assert all(growth.reserved % (2 * MIB) == 0 for growth in result.growth)
    assert all(mark.reserved <= result.reserved for mark in result.marks)


@settings(deadline=None)
@given(timelines(), RULES)
def test_frees_and_an_emptied_cache_restore_an_empty_device(timeline: Timeline, rules: Rules) -> None:
    events = list(timeline.events())
    left = {e.block for e in events if isinstance(e, Alloc)} - {e.block for e in events if isinstance(e, Free)}
    result = played([*events, *map(Free, sorted(left)), EmptyCache()], rules)
    assert result.steady == 0
    assert not result.growth or result.growth[-1].reserved == 0


@settings(deadline=None)
@given(timelines(), RULES)
def test_reserved_never_falls_unless_segments_are_given_back(timeline: Timeline, rules: Rules) -> None:
    events = [event for event in timeline.events() if not isinstance(event, EmptyCache)]
    reserved = [growth.reserved for growth in played(events, rules).growth]
    assert reserved == sorted(set(reserved))


@settings(deadline=None)
@given(timelines(), RULES)
def test_a_budget_as_large_as_reserved_changes_nothing_and_less_costs_a_retry(timeline: Timeline, rules: Rules) -> None:
    free = played(timeline.parts, rules)
    assert played(timeline.parts, rules, free.reserved) == free
    if free.reserved:
        assert played(timeline.parts, rules, free.reserved - 1).retries > 0


# -- runs of real models --


@pytest.mark.parametrize("rules", ALL_RULES)
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("llama-2-7b", {}),
        ("llama-3.1-405b", {"batch": 2}),
        ("llama-3.2-1b", {"checkpointing": False, "grad_accum": 5, "stack": "script", "seq": 700}),
        ("qwen2.5-7b", {"method": "full", "seq": 512}),
        ("qwen3-30b-a3b", {"attention": "eager", "seq": 640}),
        ("gemma-2-9b", {"quant": {"type": "int8"}}),
    ],
)
def test_layers_of_a_real_run_are_replayed_as_their_events_would_be(
    model: str, changes: dict[str, object], rules: Rules
) -> None:
    run = forecast(Scenario.load(model, **changes), "cuda")
    # without labels nothing is handed over from round to round, which events do not tell
    timeline, begin = Timeline(unlabelled(run.timeline.parts)), len(run.loaded)
    program = prepare(timeline.parts[begin:], prepare(timeline.parts[:begin], rules=rules))
    whole = played(timeline.events(), rules)
    for _ in range(2):  # the second time from what loading left the first time
        assert replay(program) == whole
    scarce = whole.reserved * 19 // 20
    capped = replay(program, budget=scarce)
    assert capped == played(timeline.events(), rules, scarce)


@pytest.mark.parametrize("rules", ALL_RULES)
def test_a_real_run_is_replayed_as_the_algorithm_written_down_literally(rules: Rules) -> None:
    # Sixteen layers, about ten thousand events; overlaps are looked for in the drawn timelines
    run = forecast(Scenario.load("llama-3.2-1b", batch=2, seq=700, checkpointing=False), "cuda")
    timeline = Timeline(unlabelled(run.timeline.parts))
    allocator = DeviceCachingAllocator(None, rules.expandable_segments, falling=rules.youngest_first)
    blocks: dict[int, Block] = {}
    allocated = reserved = 0
    for event in timeline.events():
        if isinstance(event, Alloc) and event.bytes:
            blocks[event.block] = allocator.malloc(event.bytes)
            allocated = max(allocated, allocator.allocated_bytes)
            reserved = max(reserved, allocator.total_allocated_memory)
        elif isinstance(event, Free) and event.block in blocks:
            allocator.free(blocks.pop(event.block))
        elif isinstance(event, EmptyCache):
            allocator.release_cached_blocks()
    result = played(timeline.parts, rules)
    assert (result.peak.allocated, result.reserved) == (allocated, reserved)
    assert result.steady == allocator.allocated_bytes


def interrupt(program: Program, calls: int) -> None:
    """Replay it, and raise as Ctrl-C does after so many calls and returns of functions."""

    def count(*_: object) -> None:
        nonlocal calls
        calls -= 1
        if not calls:
            raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        replay(program)
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("calls", [10, 50, 100, 150, 200])
def test_an_interrupted_replay_spoils_no_later_one(calls: int) -> None:
    """In a notebook. What comes before is replayed once for all: half of it must not be taken for the whole."""
    load, step = [take(i, 30 * MIB) for i in range(20)], [take(100, 30 * MIB), Free(100)]
    program = prepare(step, prepare(load))
    with pytest.raises(KeyboardInterrupt):
        interrupt(program, calls)
    assert replay(program) == replay([*load, *step])
