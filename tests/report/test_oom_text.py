import io
import re
from dataclasses import replace
from functools import cache

import pytest
from oom_samples import FULL, IN_BACKWARD, IN_LOSS, V22, dumped, event, fragmented, log
from samples import check_golden

from vramplan.oom.answer import Explanation, explain_file
from vramplan.report.layout import Page, visible
from vramplan.report.oom_changes_text import changes_lines
from vramplan.report.oom_text import render_oom
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import MIB

SCENARIO = scenario_from_mapping({"model": "llama-3.1-8b", "batch": 2, "seq": 2048, "gpu": "rtx4090"})


@cache
def explained(text: str, *, against: bool = False) -> Explanation:
    return explain_file(io.BytesIO(text.encode()), "train.log", SCENARIO if against else None)


def test_a_message_alone() -> None:
    check_golden("oom-message.txt", render_oom(explained(log(FULL, IN_BACKWARD) + log(V22, IN_LOSS)), Page()))


@pytest.mark.parametrize(("name", "width"), [("oom-scenario-pipe.txt", 0), ("oom-scenario-80.txt", 80)])
def test_a_message_against_a_scenario(name: str, width: int) -> None:
    text = log(V22.replace("2.00 GiB. GPU", "3.91 GiB. GPU"), IN_LOSS)
    check_golden(name, render_oom(explained(text, against=True), Page(width)))


def test_what_expandable_segments_do_to_the_scenario_is_said() -> None:
    """Against half a GiB that the allocator could have, of which 12 MiB lie in no tensor: nothing is scattered."""
    text = V22.replace("23.64 GiB", "1.64 GiB").replace("22.61 GiB", "0.61 GiB").replace("1.02 GiB", "1.00 GiB")
    text = text.replace("20.57 GiB", "512.00 MiB").replace("1.46 GiB", "12.00 MiB")
    shown = render_oom(explained(log(text, IN_BACKWARD), against=True), Page())
    assert "; with expandable segments too, it does not go through" in shown
    assert "fragmentation alone does not explain it: 12.00 MiB (2% of what was reserved)" in shown


def test_much_in_no_tensor_is_needed_for_fragmentation() -> None:
    shown = render_oom(explained(log(V22, IN_LOSS)), Page())
    assert "fragmentation is unlikely to explain it: 1.46 GiB (7% of what was reserved)" in shown


def test_a_snapshot() -> None:
    found = explain_file(io.BytesIO(dumped(fragmented())), "snapshot.pickle", None)
    check_golden("oom-snapshot.txt", render_oom(found, Page()))


def test_a_snapshot_without_a_failed_request() -> None:
    snapshot = fragmented()
    snapshot["device_traces"][0][-1] = event("snapshot", 0, 0)
    found = explain_file(io.BytesIO(dumped(snapshot)), "snapshot.pickle", None)
    check_golden("oom-snapshot-fine.txt", render_oom(found, Page()))


def test_another_failure() -> None:
    check_golden(
        "oom-other.txt", render_oom(explained("Traceback\nCUDA error: CUBLAS_STATUS_ALLOC_FAILED\n"), Page(72))
    )


@pytest.mark.parametrize("width", [50, 72, 100])
def test_prose_and_tables_fit_the_page(width: int) -> None:
    """Long names of changes and single words aside, which a terminal wraps."""
    text = render_oom(explained(log(V22, IN_LOSS), against=True), Page(width))
    changes = [line for line in text.splitlines() if line.startswith(("yes ", "no  ")) or line[:1].isdigit()]
    assert all(visible(line) <= width for line in text.splitlines() if line not in changes and " " in line.strip())


@pytest.mark.parametrize("width", [50, 80, 100, 0])
def test_what_to_do_and_what_it_costs_is_told_at_any_width(width: int) -> None:
    shown = " ".join(render_oom(explained(log(FULL, IN_LOSS), against=True), Page(width)).split())
    assert "PYTORCH_ALLOC_CONF=expandable_segments:True before the start" in shown
    assert "set_per_process_memory_fraction" in shown
    assert "another package (liger-kernel); the logits are never there as a whole" in shown


def test_a_change_that_saves_next_to_nothing_is_not_listed() -> None:
    found = explained(log(V22, IN_LOSS), against=True)
    assert found.against is not None
    (rank,) = [saving for saving in found.against.savings if saving.name == "rank"]
    little = tuple(replace(rank, saves=saves, enough=enough) for saves, enough in ((1, False), (2, True), (MIB, False)))
    shown = changes_lines(replace(found.against, savings=little), Page())
    assert [line.split()[:2] for line in shown[2:]] == [["yes", "0.00"], ["no", "1.00"]]


def test_colour_adds_nothing_else() -> None:
    found = explained(log(V22, IN_LOSS), against=True)
    coloured = render_oom(found, Page(0, color=True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_oom(found, Page())
    assert coloured != render_oom(found, Page())


def test_more_groups_than_are_shown_are_summed_up() -> None:
    snapshot = fragmented()
    blocks = snapshot["segments"][0]["blocks"] = []
    for i in range(20):
        frames = [{"filename": "a.py", "line": i, "name": "f"}]
        blocks.append(
            {"address": i * MIB, "size": MIB, "requested_size": MIB, "state": "active_allocated", "frames": frames}
        )
    snapshot["device_traces"] = []
    text = render_oom(explain_file(io.BytesIO(dumped(snapshot)), "s", None), Page())
    assert "9 more places" in text  # 20 of one MiB and the adapter, of which 12 are shown
