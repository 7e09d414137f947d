"""Every claim's commands are run, and its verdict is the one that is written down."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.reports import REPORTS, TRACED
from vramplan.claims import CLAIMS, Checked, Claim, Finding, Verdict, check
from vramplan.claims.claim import Output, all_of, judged, rounds_to
from vramplan.cli import answer, main
from vramplan.errors import CannotRun
from vramplan.report.claims_text import claims_markdown, render_claims, summary
from vramplan.report.layout import Page


@pytest.fixture(scope="module")
def rows() -> dict[str, Checked]:
    return {row.claim.id: row for row in check(CLAIMS, lambda argv: answer(argv).text)}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_the_verdict_holds(claim: Claim, rows: dict[str, Checked]) -> None:
    assert rows[claim.id].finding.verdict is claim.verdict, rows[claim.id].finding.arithmetic


@pytest.mark.parametrize(
    ("claim", "numbers"),
    [
        ("65b-fp16", "65,285,660,672 parameters x 2 B = 130.57 GB"),
        # 32 layers x 4 x (4096 x 4096) + 32 x 3 x (4096 x 11008) = 6,476,005,376 quantised; / 64 = 101,187,584 blocks
        ("constants-7b", "6,476,005,376 / 64 = 101,187,584 constants x 4 B = 404.8 MB"),
        # 101,187,584 x (4 - 1) B - 395,264 x 4 B = 301,981,696 B, less the tables that each matrix then owns
        ("saving-7b", "saved 301.8 MB"),
        ("block-85.94", "64 x 4 B = 256 B become 64 x 4/8 B + 4 B = 36 B: 85.94% less"),
        # q and v: 32 layers x 2 x 64 x (4096 + 4096); AdamW: two fp32 states, 8 B each
        ("rank-64", "q, v: 33,554,432 parameters, AdamW 268.4 MB"),
        ("adapters-bfloat16", "= 4 B each"),
        # embeddings and head: 2 x 128,256 x 4,096 x 2 B = 2,101,346,304 B = 2,004 MiB, norms 65 x 4,096 x 2 B
        ("upcast", "llama-3-8b: 2,005 MiB more"),
        ("levels", "7 below zero, zero itself, 8 above"),
        ("script-runs", "unexpected keyword argument 'optimizer'; with `optim=`: runs"),
    ],
)
def test_the_numbers_are_there(claim: str, numbers: str, rows: dict[str, Checked]) -> None:
    assert numbers in rows[claim].finding.arithmetic


def test_the_committed_page_is_not_stale(rows: dict[str, Checked]) -> None:
    # the trace's numbers take minutes: `make reports` renews them
    committed = (REPORTS / "claims.md").read_text(encoding="utf-8")
    assert len(TRACED.findall(committed)) >= 5
    told = claims_markdown(list(rows.values())) + "\n"
    assert TRACED.sub("", committed) == told, "reports/claims.md is stale: run `make reports`"


def test_ids_are_unique_and_every_claim_says_why() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert all(claim.because and (claim.commands or claim.verdict is Verdict.OPEN) for claim in CLAIMS)


def claim_of(verdict: Verdict, text: str = "vramplan made-up") -> Claim:
    def find(outputs: Sequence[Output]) -> Finding:
        return judged(100, outputs[0]["number"], f"{outputs[0]['number']}")

    return Claim("made-up", "it is 100", (text,), find, verdict, "because")


def found(claim: Claim, number: int) -> Checked:
    return next(check([claim], lambda _: json.dumps({"number": number})))


@pytest.mark.parametrize(("number", "holds"), [(100, True), (96, True), (94, False), (200, False)])
def test_a_verdict_that_changed_does_not_hold(number: int, holds: bool) -> None:
    # 5 % of 96 is 4.8, so 100 is 96 rounded; 5 % of 94 is 4.7, so it is not 94 rounded
    assert found(claim_of(Verdict.CONFIRMED), number).holds is holds


def test_the_trace_must_agree_too() -> None:
    def reply(argv: list[str]) -> str:
        return json.dumps({"number": 50 if "trace" in argv else 100})

    claim = replace(claim_of(Verdict.CONFIRMED), traced=True)
    (row,) = check([claim], reply, trace=True)
    assert row.finding.verdict is Verdict.CONFIRMED
    assert not row.holds


def test_a_command_that_cannot_run_here_says_so_and_changes_nothing() -> None:
    def reply(_: list[str]) -> str:
        raise CannotRun("needs torch", hint="install it")

    (row,) = check([claim_of(Verdict.CORRECTED)], reply)
    assert row.holds
    assert row.problem == "needs torch"
    text = render_claims([row], Page())
    assert text.startswith("not run    ")
    assert text.endswith("1 claim: 1 not run here; nothing was checked")
    (other,) = check([claim_of(Verdict.CONFIRMED)], lambda _: '{"number": 100}')
    assert summary([row, other]) == "2 claims: 1 confirmed, 1 not run here; every other verdict holds"
    assert "| **corrected (not run here: needs torch)** |" in claims_markdown([row])


def test_no_line_is_wider_than_the_page_and_all_stand_beside_the_verdict() -> None:
    claim = replace(claim_of(Verdict.CONFIRMED), said="a claim of many words " * 5, because="and a reason " * 9)
    (row,) = check([claim], lambda _: '{"number": 100}')
    first, *lines = render_claims([row], Page(60)).split("\n\n")[0].splitlines()
    assert first.startswith("confirmed  a claim")
    assert len(lines) > 5
    assert all(len(line) <= 60 and line.startswith(" " * 11) for line in lines)


def test_equal_commands_run_once() -> None:
    asked: list[list[str]] = []

    def reply(argv: list[str]) -> str:
        asked.append(argv)
        return '{"number": 100}'

    list(check([claim_of(Verdict.CONFIRMED)] * 3, reply))
    assert asked == [["made-up", "--json"]]


def test_parts_decide_together() -> None:
    assert all_of(True, True) is Verdict.CONFIRMED
    assert all_of(True, False) is Verdict.DEPENDS
    assert all_of(False, False) is Verdict.CORRECTED
    assert rounds_to(14, 13.48)
    assert not rounds_to(0.5, 0.373)


def test_check_is_a_gate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["claims", "--check", "saving-7b", "block-85.94"]) == 0
    assert capsys.readouterr().out == "2 claims: 1 confirmed, 1 corrected; every verdict holds\n"
    wrong = tuple(replace(claim, verdict=Verdict.CORRECTED) for claim in CLAIMS if claim.id == "block-85.94")
    monkeypatch.setattr("vramplan.claims.CLAIMS", wrong)
    assert main(["claims", "--check"]) == 1
    out = capsys.readouterr().out
    assert "changed: it was corrected, it is confirmed" in out
    assert out.endswith("1 claim: 1 confirmed; changed: block-85.94\n")


def test_when_nothing_can_be_checked_the_answer_is_no_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command runs another Python, which finds no transformers in an empty directory without site-packages."""
    lacking = replace(claim_of(Verdict.CONFIRMED), id="lacking", commands=("python -S -c 'import transformers'",))
    monkeypatch.setattr("vramplan.claims.CLAIMS", (lacking,))
    assert main(["claims", "--check"]) == 3
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: no claim could be checked: No module named 'transformers'\nhint:  pip install")


def test_an_unknown_claim_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "saving-7"]) == 2
    assert "did you mean 'saving-7b'?" in capsys.readouterr().err
