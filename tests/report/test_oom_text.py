import io
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from oom_samples import FULL, FULL_T4, IN_BACKWARD, IN_LOADING, IN_LOSS, V20, V22, dumped, event, fragmented, log
from plans import small_scenario
from samples import check_golden

from vramplan.oom.answer import Explanation, explain_file
from vramplan.oom.loading import OtherLoading, Unquantised
from vramplan.report.layout import Page, visible
from vramplan.report.oom_changes_text import changes_lines, remedies_lines
from vramplan.report.oom_prediction_text import loaded_otherwise
from vramplan.report.oom_text import render_oom
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import GIB, MIB

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


@pytest.mark.parametrize(("name", "width"), [("oom-loading-pipe.txt", 0), ("oom-loading-80.txt", 80)])
def test_a_model_loaded_in_16_bits(name: str, width: int) -> None:
    run = scenario_from_mapping({"model": "llama-3.1-8b"})
    found = explain_file(io.BytesIO(log(FULL_T4, IN_LOADING).encode()), "train.log", run)
    check_golden(name, render_oom(found, Page(width)))


CONFIG = "give from_pretrained a quantization_config, BitsAndBytesConfig(load_in_{}=True)"


@pytest.mark.parametrize(
    ("keys", "likely", "concluded"),
    [
        ({}, Unquantised(16, GIB), f", but in 16 bits, it seems; {CONFIG.format('4bit')}"),
        ({"quant": {"type": "int8"}}, Unquantised(32, GIB), f", but in 32 bits, it seems; {CONFIG.format('8bit')}"),
        (
            {"method": "lora"},
            Unquantised(32, GIB),
            ", but in 32 bits, it seems; give from_pretrained dtype=bfloat16 (torch_dtype in older transformers)",
        ),
        ({}, None, ", or other tensors were on the card"),
    ],
)
def test_another_loading_is_told_with_what_has_the_model_loaded_as_the_scenario_says(
    keys: dict[str, Any], likely: Unquantised | None, concluded: str
) -> None:
    said = loaded_otherwise(small_scenario(**keys), OtherLoading(GIB, likely))
    assert said == f"the model was not loaded as the scenario says{concluded}"


def test_what_expandable_segments_do_to_the_scenario_is_said() -> None:
    """Against half a GiB that the allocator could have, of which 12 MiB lie in no tensor: nothing is scattered."""
    text = V22.replace("23.64 GiB", "1.64 GiB").replace("22.61 GiB", "0.61 GiB").replace("1.02 GiB", "1.00 GiB")
    text = text.replace("20.57 GiB", "512.00 MiB").replace("1.46 GiB", "12.00 MiB")
    shown = render_oom(explained(log(text, IN_BACKWARD), against=True), Page())
    assert "; with expandable segments too, it does not go through" in shown
    assert "fragmentation alone does not explain it: 12.00 MiB (2% of what was reserved)" in shown
    assert "are lacking for the run that the scenario describes, more than for the request)" in shown


def test_what_saves_as_much_as_is_lacking_is_no_plain_no() -> None:
    """1.46 GiB lie in no tensor where 0.98 are lacking: seldom enough, and worth a try."""
    shown = render_oom(explained(log(V22, IN_LOSS)), Page())
    assert "fragmentation may explain it, which it seldom does below 20%: 1.46 GiB (7% of what was reserved)" in shown
    assert "\nperhaps             1.46  expandable segments" in shown
    assert shown.endswith(
        "most likely the run needs more than the card has; expandable segments are worth a try;"
        " --scenario TARGET shows which change saves enough"
    )


def test_what_a_replay_refuses_says_so() -> None:
    """Evaluation's tensors of 807 MiB do not go into 780 MiB, whatever lay in no tensor when a request failed."""
    run = small_scenario(seq=256, eval={"batch": 4, "accumulate": 12})
    text = V22.replace("23.64 GiB", "1.16 GiB").replace("22.61 GiB", "0.96 GiB").replace("1.02 GiB", "200.00 MiB")
    text = text.replace("2.00 GiB", "250.00 MiB").replace("20.57 GiB", "480.00 MiB").replace("1.46 GiB", "100.00 MiB")
    found = explain_file(io.BytesIO(log(text, IN_BACKWARD).encode()), "train.log", run)
    assert [line.split("  ")[0] for line in remedies_lines(found, Page())[2:]] == ["no, by replay"]


def test_a_run_that_held_more_than_its_scenario_does_not_need_more_than_the_card_has() -> None:
    """An old message without a stack, as people paste it; the scenario itself fits the T4."""
    text = V20.replace("20.00 MiB (GPU", "2.00 GiB (GPU").replace("13.75 MiB", "1.06 GiB")
    text = text.replace("13.22 GiB already", "12.31 GiB already").replace("13.71 GiB reserved", "13.01 GiB reserved")
    run = scenario_from_mapping({"model": "llama-2-7b", "batch": 4, "seq": 2048})
    shown = render_oom(explain_file(io.BytesIO(text.encode()), "train.log", run), Page())
    assert shown.endswith("the run held more than the scenario predicts; enough: batch 2 with grad_accum 2")


def test_a_request_that_the_scenario_never_makes_tells_of_another_run() -> None:
    shown = render_oom(explained(V20.replace("allocate 20.00 MiB", "allocate 7.77 GiB"), against=True), Page())
    assert "no allocation of the scenario has that size, in any phase: it may not be the run in the log" in shown


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
