"""What the picture shows is read back from its SVG; nothing in it reaches out or breaks out of its markup."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from vramplan.allocator import replay
from vramplan.cli import main
from vramplan.ledger import Component, Phase
from vramplan.report.timeline_plot import PICTURES, render_timeline, render_timeline_page
from vramplan.report.timeline_samples import Tensors, sample
from vramplan.timeline import Alloc, Enter, Free, Part, Repeat, Timeline

GIB = 2**30
SVG = "{http://www.w3.org/2000/svg}"

FORWARD = (
    Alloc(2, GIB // 8, Component.ACTIVATIONS, "layer input"),
    Alloc(3, GIB, Component.WORKSPACE, "weight"),
    Free(3),
)
STEP: tuple[Part, ...] = (
    Alloc(1, 3 * GIB, Component.WEIGHTS, "all weights"),
    Enter(Phase.FORWARD),
    Repeat(FORWARD, times=32),
    Enter(Phase.LOSS),
    Alloc(4, 2 * GIB, Component.LOGITS, "logits"),
    Free(4),
    Enter(Phase.BACKWARD),
    Repeat((Free(2),), times=32, reverse=True),
)
# 3 GiB of weights, 32 x 1/8 GiB of layer inputs and 2 GiB of logits
PEAK = 9 * GIB


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_highest_moment_is_kept_however_few_the_columns() -> None:
    for columns in (3, 10, 1000):
        samples = sample(Timeline(STEP), columns)
        assert len(samples.columns) == columns
        assert sum(samples.held) == PEAK
        assert samples.visit(samples.peak).phase is Phase.LOSS


def test_the_tensors_of_the_peak_are_counted_by_label_without_weights() -> None:
    assert sample(Timeline(STEP)).tensors == (
        Tensors("layer input", Component.ACTIVATIONS, 32, 4 * GIB),
        Tensors("logits", Component.LOGITS, 1, 2 * GIB),
    )


def test_where_there_are_only_weights_they_are_named() -> None:
    assert sample(Timeline(STEP[:1])).tensors == (Tensors("all weights", Component.WEIGHTS, 1, 3 * GIB),)


def test_phases_follow_each_other_and_fill_the_width() -> None:
    visits = sample(Timeline(STEP)).visits
    assert [visit.phase for visit in visits] == [Phase.LOAD, Phase.FORWARD, Phase.LOSS, Phase.BACKWARD]
    assert visits[0].left == 0
    assert visits[-1].right == pytest.approx(1)
    assert all(before.right == after.left for before, after in pairwise(visits))
    # the loss has 3 of 133 events, and room for its name
    assert visits[2].right - visits[2].left > 0.05


def test_a_phase_entered_twice_in_a_row_is_one_stretch() -> None:
    twice = (Enter(Phase.FORWARD), *FORWARD, Enter(Phase.FORWARD), Enter(Phase.LOSS))
    assert [visit.phase for visit in sample(Timeline(twice)).visits] == [Phase.FORWARD, Phase.LOSS]


def test_levels_between_events_are_carried_on() -> None:
    # one allocation in ten columns: all but the first stretch, before it, hold it
    columns = sample(Timeline((Alloc(1, 5, Component.WEIGHTS, "w"),)), columns=10).columns
    assert [sum(held) for held in columns] == [5] * 10


def test_the_picture_names_phases_components_and_the_peak() -> None:
    shown = texts(render_timeline(Timeline(STEP), title="a run"))
    assert {"load", "forward", "loss", "backward"} <= set(shown)
    assert {"weights", "activations", "logits", "3.00", "4.00", "2.00"} <= set(shown)
    assert "peak 9.00 GiB of tensors, in loss" in shown
    assert "layer input × 32" in shown  # noqa: RUF001
    assert shown[shown.index("workspace") + 1] == "0.00"  # in the picture, but freed before the peak
    assert "optimizer" not in shown


def test_the_stack_is_as_high_as_the_peak() -> None:
    svg = render_timeline(Timeline(STEP), title="a run")
    areas = [path for path in ET.fromstring(svg).iter(f"{SVG}path") if path.get("class") == "area"]
    heights = [float(y) for path in areas for y in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", path.get("d", ""))]
    zero = max(heights)
    weights = next(path for path in areas if path.findtext(f"{SVG}title") == "weights")
    top_of_weights = min(float(y) for y in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", weights.get("d", "")))
    # weights are 3 of the 9 GiB; coordinates have one decimal
    assert (zero - top_of_weights) / (zero - min(heights)) == pytest.approx(3 / 9, abs=0.001)


def test_reserved_and_budget_are_drawn_when_they_are_given() -> None:
    timeline = Timeline(STEP)
    with_both = texts(render_timeline(timeline, title="a run", replay=replay(timeline.parts), budget=12 * GIB))
    assert "budget" in with_both
    # Segments: 3 GiB of weights and the first layer input, 1/8. The other 31 inputs are cut from the cached GiB of the
    # temporary, which therefore asks for a new one in rounds 1, 2, 10, 18 and 26: 5 GiB. Logits: 2 GiB. 10 1/8 in all.
    assert "peak 9.00 GiB allocated, in loss · 10.12 GiB reserved" in with_both
    assert not {"budget", "reserved, at most"} & set(texts(render_timeline(timeline, title="a run")))


def test_a_budget_far_above_is_left_out_rather_than_squash_the_stack() -> None:
    assert "budget" not in texts(render_timeline(Timeline(STEP), title="a run", budget=80 * GIB))


@pytest.mark.parametrize("render", [render_timeline, render_timeline_page])
def test_names_cannot_break_out_of_the_markup(render) -> None:  # type: ignore[no-untyped-def]
    evil = "</title><script>alert('&\"')</script>"
    text = render(Timeline((Alloc(1, 5, Component.LOGITS, evil),)), title=evil)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_is_self_contained_and_has_a_drawing_for_narrow_windows() -> None:
    page = render_timeline_page(Timeline(STEP), title="a run")
    assert not re.search(r"(?:src|href)=|url\(|@import|<script", page)
    assert re.findall(r'viewBox="0 0 (\d+) ', page) == ["960", "400"]
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) == 4
    assert "prefers-color-scheme: dark" in page


def test_a_picture_is_described_for_who_cannot_see_it() -> None:
    root = ET.fromstring(render_timeline(Timeline(STEP), title="a run"))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "a run"
    description = root.findtext(f"{SVG}desc") or ""
    assert description.startswith("peak 9.00 GiB of tensors, in loss. At the peak: weights 3.00 GiB")
    assert {element.get("id") for element in root} >= set((root.get("aria-labelledby") or "").split())


def test_160_000_events_make_less_than_a_megabyte() -> None:
    timeline = Timeline((Alloc(1, 3 * GIB, Component.WEIGHTS, "w"), Repeat((Repeat(FORWARD, 30),), times=1800)))
    assert len(render_timeline_page(timeline, title="long", replay=replay(timeline.parts)).encode()) < 2**20


@pytest.mark.parametrize("timeline", [Timeline(()), Timeline((Enter(Phase.LOSS),)), Timeline(STEP[:1])])
def test_short_timelines_have_pictures(timeline: Timeline) -> None:
    ET.fromstring(render_timeline(timeline, title="", replay=replay(timeline.parts)))


def test_a_long_label_is_shortened_in_the_legend_and_whole_in_its_tooltip() -> None:
    label = "model.layers.*.self_attn." + "very_" * 20 + "long"
    svg = render_timeline(Timeline((Alloc(1, GIB, Component.LOGITS, label),)), title="t", width=400)
    assert label in [element.text for element in ET.fromstring(svg).iter(f"{SVG}title")]
    assert max(map(len, texts(svg))) < 60


def test_the_picture_follows_the_suffix() -> None:
    starts = {suffix: draw(Timeline(STEP), title="a run")[:10] for suffix, draw in PICTURES.items()}
    assert starts == {".html": "<!DOCTYPE ", ".svg": "<svg xmlns"}


def test_a_picture_takes_a_files_place_and_its_rights(tmp_path: Path) -> None:
    file = tmp_path / "run.SVG"
    file.touch(0o600)
    assert main(["predict", "llama-3.2-1b", "--timeline", str(file)]) == 0
    assert file.read_text(encoding="utf-8").startswith("<svg ")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
