"""Marks by arithmetic on sizes: the same as those of the timeline, event by event."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from real_models import MIXTURES, MODELS, scenario
from timelines import timelines

from vramplan.ledger import Component, Phase
from vramplan.predict.forecast import BASIS, forecast, ledger
from vramplan.predict.moments import Moments
from vramplan.predict.resident import granularity
from vramplan.predict.script_items import Item, Rounds
from vramplan.predict.template import Template, stretched
from vramplan.record import Device
from vramplan.scenario import Scenario
from vramplan.timeline import Alloc, Enter, Free, Part, Repeat, Timeline

RUNS: list[dict[str, Any]] = [
    {},
    {"checkpointing": False, "grad_accum": 2, "attention": "eager"},
    {"checkpointing": "reentrant", "stack": "hf-trainer", "optimizer": "paged_adamw_8bit", "lora": {"dropout": 0.1}},
    {"stack": {"base": "script", "outputs": "held-next"}, "grad_accum": 2, "gpu": "t4"},
    {"method": "full", "optimizer": "sgd", "gpu": "h100-80gb"},
    {"method": "lora", "quant": {"type": "none"}, "attention": "sdpa:efficient"},
    {"method": "inference", "new_tokens": 9},
]
WITHOUT_DROPOUT = {"lora": {"dropout": 0}}  # peft has none for adapters of experts


def written_out(wanted: Scenario, device: Device) -> Any:
    """The ledger of the timeline with every round of every repeat written out."""
    events = tuple(forecast(wanted, device).timeline.events())
    return Timeline(events).ledger(BASIS, granularity=granularity(device))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(run) or "plain")
@pytest.mark.parametrize("family", [*MODELS, *MIXTURES])
@settings(max_examples=6, deadline=None)  # of every family and run; how long it takes is not what is tested
@given(batch=st.integers(1, 9), seq=st.integers(1, 3000), device=st.sampled_from(["cpu", "cuda"]))
def test_a_ledger_without_a_timeline_is_the_timelines(
    family: str, run: dict[str, Any], batch: int, seq: int, device: Device
) -> None:
    wanted = replace(scenario(family, **{**run, **WITHOUT_DROPOUT}), batch=batch, seq=seq)
    assert ledger(wanted, device) == written_out(wanted, device)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model", ["llama-2-7b", "llama-3.1-70b"])
def test_a_large_models_too(model: str, device: Device) -> None:
    base = Scenario.load(model, gpu="a100-80gb")
    for batch, seq in ((1, 512), (1, 8191), (3, 1024), (16, 2047)):
        wanted = replace(base, batch=batch, seq=seq)
        assert ledger(wanted, device) == written_out(wanted, device)


def plain(parts: tuple[Part, ...], sizes: dict[int, tuple[int, Component]]) -> list[Item]:
    """The parts as `Template.write` takes them; `sizes` receives each block's bytes and component."""
    items: list[Item] = []
    for part in parts:
        if isinstance(part, Alloc):
            sizes[part.block] = part.bytes, part.component
            items.append(part.block)
        elif isinstance(part, Free):
            items.append(~part.block)
        elif isinstance(part, Enter):
            items.append(part.phase)
        elif isinstance(part, Repeat):
            items.append(Rounds(part.times, part.reverse, plain(part.body, sizes)))
    return items


@given(timeline=timelines(), unit=st.sampled_from([1, 512]))
def test_any_timelines_marks_are_found_among_the_moments(timeline: Timeline, unit: int) -> None:
    known: dict[int, tuple[int, Component]] = {}
    items = plain(timeline.parts, known)
    sizes = sorted({size for size, _ in known.values()})
    blocks = [(sizes.index(size), component) for _, (size, component) in sorted(known.items())]
    moments = Moments(blocks, items)
    expected = Timeline(tuple(timeline.events())).ledger({}, granularity=unit)
    assert moments.marks(sizes, unit).ledger({}) == expected


def test_padded_dimensions_and_rounds_in_which_a_phase_begins() -> None:
    template = Template(1013, 251)
    template.block("kept", "int8", (1013, 251), Component.ACTIVATIONS)
    template.block("tiles", "bool", (1013, stretched(251, 128, 1)), None)
    template.block("small", "int8", (7,), Component.GRADIENTS)
    template.write([Phase.FORWARD, Rounds(5, False, [0, 2, 1, ~1]), Rounds(5, True, [1, ~1, Phase.BACKWARD, ~0])])
    for batch, seq, unit in ((1, 1, 1), (2, 127, 512), (3, 128, 1), (50, 4096, 512)):
        events = tuple(Timeline(template.parts(batch, seq)).events())
        expected = Timeline(events).ledger({}, granularity=unit)
        assert template.marks(batch, seq, unit).ledger({}) == expected
    highest = template.marks(2, 127, 1).highest
    # 5 kept of 2 x 127 B, 5 small ones of 7 B, one tile of 2 x 128 B; the second round of the last repeat has one
    # kept less, and is the first to take its tile in backward
    assert highest[Phase.FORWARD].total == 5 * 254 + 5 * 7 + 256
    assert highest[Phase.BACKWARD].total == 4 * 254 + 5 * 7 + 256


def test_of_equal_moments_the_first_is_the_mark() -> None:
    blocks = [(0, Component.WORKSPACE), (1, Component.LOGITS)]
    moments = Moments(blocks, [Phase.LOSS, 0, ~0, 1, ~1])
    held = moments.marks([100, 100], 1).highest[Phase.LOSS].components()
    assert held[list(Component).index(Component.WORKSPACE)] == 100
    later = moments.marks([100, 101], 1).highest[Phase.LOSS].components()
    assert later[list(Component).index(Component.LOGITS)] == 101
