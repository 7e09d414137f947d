"""The README tells the truth: its output is what the command prints, its table is the report, its commands exist."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.nocard.figures import ENGINES
from benchmarks.nocard.render import peak_error
from vramplan import cli
from vramplan.commands import all_commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"\| `vramplan ([^`]+)` \|", README)


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_printed_output_is_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"\$ vramplan ([^\n]+)\n(.*?)\n```", README, re.DOTALL)
    assert shown is not None
    assert cli.main(shlex.split(shown[1])) == 0
    assert capsys.readouterr().out.rstrip() == shown[2].rstrip()


def test_what_the_three_stacks_need_is_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"\$ vramplan (predict [^\n]+)\n", README)
    said = re.search(r"For the model above they need ([\d.]+), ([\d.]+) and ([\d.]+) GiB", README)
    assert shown is not None
    assert said is not None
    for stack, number in zip(("hf-trainer", "trl", "script"), said.groups(), strict=True):
        assert cli.main([*shlex.split(shown[1]), "--stack", stack]) == 0
        assert f"fits: {number} GiB of" in capsys.readouterr().out


def test_the_accuracy_table_is_the_reports() -> None:
    report = (ROOT / "reports" / "accuracy.md").read_text(encoding="utf-8")
    rows = [line for line in README.splitlines() if line.startswith(("| analytic |", "| trace |"))]
    assert rows
    for row in rows:
        assert row in report


def test_the_table_of_estimators_is_the_reports() -> None:
    report = (ROOT / "reports" / "peers.md").read_text(encoding="utf-8")
    rows = [line for line in README.splitlines() if re.match(r"\| [^|]+ \| \d+ of \d+ \|", line)]
    assert len(rows) >= 8
    assert all(row in report for row in rows)


def test_what_is_said_of_the_grid_and_of_the_claims_is_in_their_reports() -> None:
    known = json.loads((ROOT / "reports" / "grid.json").read_text(encoding="utf-8"))["known"]
    allocated, reserved = (known["errors"][f"peak {what}"] for what in ("allocated", "reserved"))
    plain = " ".join(README.split())
    assert f"{allocated['mean']:.3%} of the peak on average, and {abs(allocated['worst']):.2%} at worst" in plain
    said = f"its reserved within {reserved['mean']:.3%} and {abs(reserved['worst']):.2%}, over {known['scenarios']}"
    assert said in plain
    claims = re.search(
        r"(\d+) confirmed, (\d+) corrected", (ROOT / "reports" / "claims.md").read_text(encoding="utf-8")
    )
    assert claims is not None
    assert claims[0] in plain


def test_what_is_said_of_emulated_cards_is_in_their_report() -> None:
    rows = json.loads((ROOT / "reports" / "emulated.json").read_text(encoding="utf-8"))["rows"]
    plain = " ".join(README.split())
    assert f"in {len(rows)} runs on emulated cards" in plain
    for engine in ENGINES:
        for what in ("allocated", "reserved"):
            errors = [abs(peak_error(row, engine, what)) for row in rows]
            assert f"{sum(errors) / len(errors):.3%} ({max(errors):.1%})" in plain, (engine, what)
    exact = {engine: sum(not peak_error(row, engine, "reserved") for row in rows) for engine in ENGINES}
    assert f"in {exact['trace']} of them by the trace, in {exact['analytic']} by the closed form" in plain


#: Commands of the table that need a file of the reader's own.
OWN_FILES = ("axolotl.yaml", "train.jsonl", "train.log")


@pytest.mark.parametrize(
    "command",
    [c for c in COMMANDS if c.startswith(("predict", "list", "inspect")) and not any(f in c for f in OWN_FILES)],
)
def test_quick_commands_answer(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / word) if word.endswith(".html") else word for word in shlex.split(command)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_the_parser_knows(command: str) -> None:
    args = cli.build_parser(all_commands()).parse_args(shlex.split(command))
    assert args.command == command.split()[0]


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
