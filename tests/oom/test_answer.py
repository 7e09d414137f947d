import codecs
import io
import json
import sys
from functools import cache
from pathlib import Path

import pytest
from msgspec.structs import replace
from oom_samples import FULL, FULL_T4, IN_BACKWARD, IN_LOADING, IN_LOSS, V22, cause_of, dumped, fragmented, log
from plans import small_scenario

import vramplan
from vramplan.catalog.gpus import gpu
from vramplan.cli import main
from vramplan.errors import UsageError
from vramplan.ledger import Component, Phase
from vramplan.oom.against_scenario import Against, candidates
from vramplan.oom.answer import Explanation, explain_file, explain_path
from vramplan.oom.message import read_message
from vramplan.oom.printed import Printed
from vramplan.oom.shortage import Cause, of_message
from vramplan.predict.forecast import ledger
from vramplan.predict.overheads import context_of
from vramplan.scenario import Scenario
from vramplan.scenario_file import scenario_from_mapping
from vramplan.stacks import LossKernel
from vramplan.timeline import Alloc, Enter, Free, Repeat
from vramplan.units import GIB, MIB

SCENARIO = scenario_from_mapping({"model": "llama-3.1-8b", "batch": 2, "seq": 2048, "gpu": "rtx4090"})
#: The fp32 log-probabilities of 2 x 2,048 tokens: 4,096 x 128,256 x 4 bytes = 1.957 GiB.
LOGITS = 4096 * 128_256 * 4


def message(requested: int, *, free: str = "1.02 GiB") -> str:
    return V22.replace("2.00 GiB. GPU", f"{requested / GIB:.2f} GiB. GPU").replace(
        "1.02 GiB is free", f"{free} is free"
    )


@cache
def explained(text: str, *, scenario: bool = False) -> Explanation:
    return explain_file(io.BytesIO(text.encode()), "train.log", SCENARIO if scenario else None)


def held_against(text: str) -> Against:
    found = explained(text, scenario=True).against
    assert found is not None
    return found


def test_the_request_is_found_in_the_scenarios_timeline() -> None:
    found = held_against(log(message(LOGITS), IN_LOSS))
    assert found.predicted_phase is Phase.LOSS
    assert found.candidates[0].phase is Phase.LOSS
    assert {one.bytes for one in found.candidates if one.phase is Phase.LOSS} == {LOGITS}
    assert found.predicted == ledger_of(SCENARIO, Phase.LOSS)
    assert found.tokens is None


def ledger_of(scenario: Scenario, phase: Phase) -> int:
    return vramplan.predict(scenario).ledger.allocated(phase)


@pytest.mark.parametrize("loss", ["liger", "chunked"])
def test_a_fused_loss_that_was_not_in_effect_is_told_by_the_stack(loss: str) -> None:
    scenario = replace(SCENARIO, stack=replace(SCENARIO.stack, loss=LossKernel(loss)))
    found = explain_file(io.BytesIO(log(message(LOGITS), IN_LOSS).encode()), "train.log", scenario).against
    plain = held_against(log(message(LOGITS), IN_LOSS))
    assert found is not None
    assert (found.whole_logits, plain.whole_logits) == (True, False)
    assert (found.scenario, found.ran) == (scenario, SCENARIO)
    assert found.tokens is None
    assert found.candidates == plain.candidates  # no larger batch is blamed: it is as large as the scenario's
    assert found.savings == plain.savings


def test_a_larger_batch_than_planned_is_recognised() -> None:
    found = held_against(log(message(4 * LOGITS), IN_LOSS))
    assert found.tokens is not None
    assert (found.tokens.seen, found.tokens.planned) == (4 * 4096, 4096)
    # what would save enough is asked of the batch as it was
    assert (found.scenario.seq, found.ran.seq) == (2048, 4 * 2048)
    (sequence,) = [saving for saving in found.savings if saving.name == "sequence"]
    assert sequence.label.endswith("instead of 8,192")


@pytest.mark.parametrize("requested", [LOGITS // 2, LOGITS // 4])
def test_a_smaller_request_is_no_smaller_batch(requested: int) -> None:
    """16-bit logits of the planned batch are half of LOGITS; a part of them is no batch of its own."""
    found = held_against(log(message(requested), IN_LOSS))
    assert found.tokens is None
    assert found.ran == SCENARIO


def test_savings_are_predictions_of_the_changed_scenario_and_enough_where_they_say_so() -> None:
    found = held_against(log(message(LOGITS), IN_LOSS))
    assert [saving.enough for saving in found.savings] == sorted((s.enough for s in found.savings), reverse=True)
    by_name = {saving.name: saving for saving in found.savings}
    changed = scenario_from_mapping(
        {**SCENARIO.to_mapping(), "stack": {**SCENARIO.to_mapping()["stack"], "loss": "liger"}}
    )
    assert by_name["loss"].saves == ledger(SCENARIO).peak - ledger(changed).peak
    # the mildest length that is enough: one step of 64 tokens more would not save as much, or not fit
    seq = int(by_name["sequence"].label.split()[1].replace(",", ""))
    longer = scenario_from_mapping({**SCENARIO.to_mapping(), "seq": seq + 64})
    assert by_name["sequence"].enough
    verdict = vramplan.predict(longer, budget=found.budget).verdict
    assert verdict is not None
    assert ledger(SCENARIO).peak - ledger(longer).peak < found.needed or not verdict.fits


def test_what_is_enough_also_leaves_room_for_the_allocators_segments() -> None:
    """Liger's loss saves more than is lacking, and what it leaves is in pieces: `predict` says it does not fit."""
    given = scenario_from_mapping({**SCENARIO.to_mapping(), "batch": 4, "seq": 4096})
    text = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 7.83 GiB. GPU 0 has a total capacity of 23.64 "
        "GiB of which 3.12 GiB is free. Including non-PyTorch memory, this process has 20.51 GiB memory in use. Of the "
        "allocated memory 19.32 GiB is allocated by PyTorch, and 730.11 MiB is reserved by PyTorch but unallocated."
    )
    found = explain_file(io.BytesIO(text.encode()), "train.log", given).against
    assert found is not None
    fused, shorter = (next(saving for saving in found.savings if saving.name == name) for name in ("loss", "sequence"))
    assert fused.saves > found.needed
    assert not fused.enough
    assert shorter.enough
    seq = int(shorter.label.split()[1].replace(",", ""))
    verdicts = [
        vramplan.predict(replace(given, **keys), budget=found.budget).verdict
        for keys in ({"seq": seq}, {"stack": replace(given.stack, loss=LossKernel.LIGER)})
    ]
    assert [verdict is not None and verdict.fits for verdict in verdicts] == [True, False]


def test_the_advised_list_fits_with_what_was_lacking_to_spare() -> None:
    found = explained(log(message(LOGITS), IN_LOSS), scenario=True)
    assert found.against is not None
    assert found.shortage is not None
    assert found.against.advice
    advice = found.against.advice[0]
    assert advice.steps[-1].total <= found.against.held - found.shortage.lacking
    body = found.to_json()["prediction"]["advice"][0]
    assert body["verdict"] == advice.verdict.to_json()
    assert [change["cost"] for change in body["changes"]] == [step.change.cost for step in advice.steps]
    assert found.solvable


def test_nothing_saves_enough_on_a_card_far_too_small() -> None:
    text = V22.replace("23.64 GiB of", "0.50 GiB of").replace("1.02 GiB is free", "10.00 MiB is free")
    text = text.replace("22.61 GiB memory", "0.49 GiB memory").replace("20.57 GiB", "0.10 GiB")
    found = explained(log(text.replace("1.46 GiB", "5.00 MiB"), IN_LOSS), scenario=True)
    assert found.against is not None
    assert not found.against.advice
    assert not found.solvable


def test_a_remedy_for_one_request_is_none_for_a_run_that_needs_more() -> None:
    # 50 MiB are lacking and 2.46 GiB of 9.46 lie in no tensor; the scenario needs 6 GiB more than the card has
    text = V22.replace("2.00 GiB. GPU", "0.05 GiB. GPU").replace("23.64 GiB of", "10.00 GiB of")
    text = text.replace("1.02 GiB is free", "1.00 MiB is free").replace("22.61 GiB memory", "9.90 GiB memory")
    text = log(text.replace("20.57 GiB", "7.00 GiB").replace("1.46 GiB", "2.46 GiB"), IN_LOSS)
    alone, held = explained(text), explained(text, scenario=True)
    assert alone.remedy is not None
    assert alone.remedy.name == "expandable-segments"
    assert held.against is not None
    assert held.against.needed > held.remedies[0].saves
    assert held.remedy is None


def test_remedies_outside_the_run() -> None:
    found = explained(log(FULL, IN_BACKWARD))
    assert [(remedy.name, remedy.enough) for remedy in found.remedies] == [
        ("limit", True),
        ("expandable-segments", False),  # half a GiB of 11.50, as in any run
    ]
    assert "PYTORCH_ALLOC_CONF=expandable_segments:True" in found.remedies[1].label  # as the message spells it
    assert found.moment.phase is Phase.BACKWARD
    shortage = of_message(read_message([FULL]))
    assert found.shortage == shortage


def test_the_scenarios_replay_decides_whether_it_was_fragmentation() -> None:
    """Evaluation leaves segments too small for what it gathers next: a run of 807 MiB of tensors needs 1,066 MiB, and
    875 MiB with expandable segments, however little was in no tensor when a request failed."""
    run = small_scenario(seq=256, eval={"batch": 4, "accumulate": 12})
    for room, cause in ((960 * MIB, Cause.FRAGMENTATION), (780 * MIB, Cause.DEMAND)):
        found = explain_file(io.BytesIO(evaluation_failed(room).encode()), "train.log", run)
        assert found.shortage is not None
        assert cause_of(found.shortage) is Cause.DEMAND  # by its figures alone
        assert found.cause is cause
        assert found.to_json()["shortage"]["cause"] == cause.value
        assert (found.remedy is not None) is (cause is Cause.FRAGMENTATION)


def test_a_run_that_had_expandable_segments_gains_nothing_by_them() -> None:
    run = small_scenario(seq=256, eval={"batch": 4, "accumulate": 12}, expandable_segments=True)
    found = explain_file(io.BytesIO(evaluation_failed(800 * MIB).encode()), "train.log", run)
    assert found.cause is Cause.DEMAND
    assert [remedy.enough for remedy in found.remedies] == [False]


def evaluation_failed(room: int) -> str:
    """A request of 250 MiB that fails where that much can be reserved, with 100 MiB in no tensor."""
    reserved = room - 200 * MIB
    text = (
        f"CUDA out of memory. Tried to allocate 250.00 MiB. GPU 0 has a total capacity of {room / GIB + 0.4:.2f} GiB of"
        f" which 200.00 MiB is free. Including non-PyTorch memory, this process has {reserved / GIB + 0.4:.2f} GiB"
        " memory in use. Of the"
        f" allocated memory {reserved / GIB - 0.1:.2f} GiB is allocated by PyTorch, and 100.00 MiB is reserved by"
        " PyTorch but unallocated."
    )
    return log(text, IN_BACKWARD)


def test_the_card_is_named_by_its_capacity() -> None:
    """The T4's driver reports 15,828,320,256 bytes, which prints as 14.74 GiB."""
    assert "t4" in explained(log(V22.replace("23.64 GiB", f"{capacity('t4') / GIB:.2f} GiB"), IN_LOSS)).gpus
    assert explained(log(V22.replace("23.64 GiB", "1.23 GiB"), IN_LOSS)).gpus == ()


def test_a_scenario_without_a_card_ran_on_the_one_that_the_capacity_tells() -> None:
    run = scenario_from_mapping({"model": "llama-3.1-8b", "batch": 2, "seq": 4096})
    message = V22.replace("23.64 GiB", f"{capacity('t4') / GIB:.2f} GiB").replace("22.61 GiB", "14.60 GiB")
    found = explain_file(io.BytesIO(log(message, IN_LOSS).encode()), "train.log", run)
    assert found.gpus == ("t4",)
    assert found.against is not None
    assert found.against.scenario.gpu == "t4"
    assert all(advice.scenario.gpu == "t4" for advice in found.against.advice)


def capacity(name: str) -> int:
    return gpu(name).capacity


def failed_in_loading(**keys: object) -> Explanation:
    run = scenario_from_mapping({"model": "llama-3.1-8b", **keys})
    return explain_file(io.BytesIO(log(FULL_T4, IN_LOADING).encode()), "train.log", run)


def test_a_model_that_was_not_loaded_in_4_bits_is_told_of_and_no_change_is_asked_for() -> None:
    found = failed_in_loading(stack="trl")
    assert found.against is not None
    assert found.against.other_loading is not None
    assert found.against.other_loading.expected == found.against.predicted
    assert found.to_json()["prediction"]["other_loading"]["likely"] == {"bits": 16, "bytes": 8_030_261_248 * 2}
    assert (found.against.savings, found.against.advice) == ((), ())
    assert found.cause is Cause.DEMAND
    assert [(remedy.name, remedy.enough) for remedy in found.remedies] == [("expandable-segments", False)]
    assert found.solvable


def test_a_failure_that_is_predicted_after_loading_tells_nothing_of_one_in_loading() -> None:
    found = failed_in_loading(gpu="a100-40gb").against  # by whose kernels it fails later
    assert found is not None
    assert found.fails_at is not None
    assert (found.fails_at.phase, found.fits_expandable, found.replayed) == (Phase.BACKWARD, True, None)
    later = explain_file(io.BytesIO(log(FULL_T4, IN_BACKWARD).encode()), "train.log", found.scenario).against
    assert later is not None
    assert (later.fits_expandable, later.replayed) == (True, True)


def test_only_what_lowers_loading_helps_against_a_failure_in_loading() -> None:
    found = failed_in_loading(method="lora").against
    assert found is not None
    assert found.other_loading is None
    by_name = {saving.name: saving for saving in found.savings}
    assert [name for name, saving in by_name.items() if saving.enough] == ["quantize"]
    assert not {"optimizer", "loss", "sequence", "micro-batch"} & set(by_name)
    before, after = (ledger(run).allocated(Phase.LOAD) for run in (found.scenario, found.advice[0].scenario))
    assert by_name["quantize"].saves == before - after
    assert found.needed == found.predicted - (found.budget - context_of(found.scenario))


def test_a_snapshot_is_known_by_its_first_byte() -> None:
    found = explain_file(io.BytesIO(dumped(fragmented())), "s.pickle", SCENARIO)
    assert found.usage is not None
    assert found.to_json()["shortage"]["cause"] == "fragmentation"
    assert found.remedies[0].enough
    assert found.against is not None


@pytest.mark.parametrize(("start", "what"), [(b"PK\x03\x04", "zip archive"), (b"\x1f\x8b\x08", "compressed")])
def test_other_files_are_refused_by_name(start: bytes, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        explain_file(io.BytesIO(start + b"x" * 100), "file", None)


def test_a_log_that_begins_with_the_message(tmp_path: Path) -> None:
    for text in (V22, "\n" + V22, "x\n" + V22, "\n\n" + V22):
        file = tmp_path / "log.txt"
        file.write_text(text)
        assert explain_path(file).shortage is not None


def test_a_log_of_windows_powershell_is_read() -> None:
    text = log(V22, IN_LOSS).replace("\n", "\r\n")
    found = explain_file(io.BytesIO(codecs.BOM_UTF16_LE + text.encode("utf-16-le")), "train.log")
    assert found == explained(log(V22, IN_LOSS))


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["explain-oom", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.log"
    file.write_text(log(message(LOGITS), IN_LOSS))
    code, out, _ = run(capsys, str(file))
    assert code == 0
    assert out.splitlines()[-1].startswith("out of memory: ")
    code, out, _ = run(capsys, str(file), "--scenario", "llama-3.1-8b", "--batch", "2", "--gpu", "rtx4090", "--json")
    body = json.loads(out)
    assert (code, body["kind"], body["phase"], body["prediction"]["scenario"]["batch"]) == (0, "oom", "loss", 2)
    assert body["further_failures"] == 0


def test_the_command_says_no_when_nothing_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "train.log"
    text = V22.replace("1.46 GiB", "5.00 MiB").replace("20.57 GiB", "100.00 MiB").replace("1.02 GiB", "1.00 MiB")
    file.write_text(log(text, IN_LOSS))
    code, out, _ = run(capsys, str(file), "--scenario", "llama-2-70b")
    assert code == 1
    assert "no change that is known saves enough" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (("nowhere.log",), "cannot read nowhere.log: No such file"),
        ((".",), "Is a directory"),
        (("hostile.pickle",), "import or call code"),
        (("fine.log",), "no out-of-memory error in 1 line"),
        (("empty.log",), "no out-of-memory error in 0 lines"),
        (("oom.log", "--batch", "3"), "no scenario is named"),
        (("oom.log", "--scenario", "no-such-model"), "unknown target"),
    ],
)
def test_bad_input_is_told_in_a_line(
    argv: tuple[str, ...],
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hostile.pickle").write_bytes(b"\x80\x04cos\nsystem\n(X\x02\x00\x00\x00lstR.")
    Path("fine.log").write_text("fine\n")
    Path("empty.log").write_text("")
    Path("oom.log").write_text(log(V22, IN_LOSS))
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert what in err
    assert "hint:" in err


def test_stdin_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log(V22, IN_LOSS).encode())))
    code, out, _ = run(capsys, "-")
    assert code == 0
    assert out.startswith("stdin, line 11: out of memory in the loss")


def test_a_request_after_rounds_is_of_the_phase_that_they_end_in() -> None:
    asked = Alloc(1, 40 * MIB, Component.ACTIVATIONS, "hidden states")
    micro_batch = (asked, Enter(Phase.BACKWARD), Free(1), Enter(Phase.FORWARD))
    parts = (Enter(Phase.FORWARD), Repeat(micro_batch, 3), asked._replace(block=2))
    (found,) = candidates(parts, Printed.exact(40 * MIB), Phase.FORWARD)
    assert (found.phase, found.times) == (Phase.FORWARD, 4)
