"""One check with a case of every status, in every format, whole; and names that try to be markup."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from samples import RECORD, check_golden

from vramplan.check import Check, Item, Status, check, parse_limits
from vramplan.check.update import Action, Update
from vramplan.ledger import Component, Ledger, Phase
from vramplan.record import Record
from vramplan.report.check_github import check_github
from vramplan.report.check_junit import check_junit
from vramplan.report.check_markdown import check_markdown
from vramplan.report.check_text import render_check, render_update
from vramplan.report.layout import Page, visible
from vramplan.scenario_file import scenario_from_mapping
from vramplan.units import KIB, MIB

UPGRADED = {"torch": "2.14.0", "peft": "0.22.0"}


def result(name: str, grown: int = 0, **keys: object) -> Record:
    """A record whose logits in backward, where it peaks, are `grown` bytes more."""
    entries = tuple(
        replace(e, bytes=e.bytes + (grown if (e.phase, e.component) == (Phase.BACKWARD, Component.LOGITS) else 0))
        for e in RECORD.ledger.entries
    )
    scenario = scenario_from_mapping(RECORD.scenario.to_mapping() | {"name": name} | keys)
    return replace(RECORD, scenario=scenario, ledger=Ledger(entries, RECORD.ledger.steady))


def item(record: Record, folder: str) -> Item:
    file = Path(folder, f"{record.scenario.name}.json")
    return Item(record, str(file), file)


def checked(new: list[Record], old: list[Record], *limits: str, allow_vanished: bool = False) -> Check:
    sides = [item(record, "new") for record in new], [item(record, "reports/baseline") for record in old]
    return check(*sides, parse_limits(limits or ("peak:1%", "prefill:1%")), allow_vanished=allow_vanished)


OLD = [result(name) for name in ("worse", "gone", "other", "better", "moved", "equal")]
NEW = [
    replace(result("worse", 100 * MIB), libraries=UPGRADED),
    result("other", batch=8),
    replace(result("better", -100 * MIB), libraries=UPGRADED),
    result("moved", 4 * KIB),
    result("fresh"),
    result("equal"),
]
EVERY = checked(NEW, OLD)
HOSTILE = "<script>alert(1)</script> | `x` [a](b) @all\n::error::oops\x1b[31m,a:b%"


@pytest.mark.parametrize("width", [0, 60, 120])
def test_text_whole(width: int) -> None:
    text = render_check(EVERY, Page(width))
    check_golden(f"check-{width or 'pipe'}.txt", text)
    told = text.split("\n\n")[2:]  # columns of the table stay whole, sentences are wrapped
    assert not width or all(visible(line) <= width for part in told for line in part.splitlines())


def test_colours_are_only_for_terminals() -> None:
    plain, coloured = render_check(EVERY, Page()), render_check(EVERY, Page(color=True))
    assert plain != coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_markdown_whole() -> None:
    check_golden("check.md", check_markdown(EVERY))


def test_github_whole() -> None:
    check_golden("check-github.txt", check_github(EVERY))


def test_junit_whole() -> None:
    check_golden("check-junit.xml", check_junit(EVERY))


def test_a_passed_check_is_one_short_answer() -> None:
    passed = checked(OLD, OLD, "peak:1%")
    assert check_github(passed).splitlines() == [
        "::notice title=vramplan check::ok: 6 results within the limits",
        "ok: 6 results within the limits",
    ]
    assert check_markdown(passed).splitlines()[0] == "\N{WHITE HEAVY CHECK MARK} **ok: 6 results within the limits**"
    assert render_check(passed, Page()).splitlines()[-1] == "ok: 6 results within the limits"


def test_only_what_was_compared_is_counted() -> None:
    def last(*sides: list[Record], allow_vanished: bool = True) -> str:
        return check_github(checked(*sides, "peak:1%", allow_vanished=allow_vanished)).splitlines()[-1]

    assert last(OLD[4:5], OLD[4:]) == "ok: 1 result within the limits, 1 vanished"
    assert last(NEW[4:], OLD[5:]) == "ok: 1 result within the limits, 1 new"
    assert last(OLD[4:5], OLD[4:], allow_vanished=False) == "regression: 1 of 2 results"


def test_something_vanished_with_leave_is_a_warning() -> None:
    allowed = checked(OLD[1:], OLD, allow_vanished=True)
    assert allowed.passed
    assert "\n::warning file=reports/baseline/worse.json,title=vanished%3A worse" in check_github(allowed)


def test_a_name_stays_one_line_of_text() -> None:
    hostile = checked([result(HOSTILE, 100 * MIB)], [result(HOSTILE)])
    text = render_check(hostile, Page())
    assert "\x1b" not in text
    assert not any(line.startswith("::") for line in text.splitlines())


def test_a_name_is_no_markdown() -> None:
    hostile = checked([result(HOSTILE, 100 * MIB)], [result(HOSTILE)])
    markdown = check_markdown(hostile)
    assert re.search(r"(?<!\\)<(?!br>)", markdown) is None
    row = next(line for line in markdown.splitlines() if "script" in line and line.startswith("|"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 8  # seven cells
    assert r"\@all" in row


def test_a_name_is_no_workflow_command() -> None:
    # The rules of actions/toolkit command.ts: % \r \n in data; : and , too in properties.
    hostile = checked([result(HOSTILE, 100 * MIB)], [result(HOSTILE)])
    *lines, last = check_github(hostile).splitlines()
    assert (len(lines), last) == (2, "regression: 1 of 1 result")
    for line in lines:
        match = re.fullmatch(r"::error ([^:]*)::(.*)", line)
        assert match
        assert all(re.fullmatch(r"(file|title)=[^:,]*", part) for part in match[1].split(","))
    assert "a%3Ab%25" in lines[1]


def test_a_name_is_no_xml() -> None:
    hostile = checked([result(HOSTILE, 100 * MIB)], [result(HOSTILE)])
    root = ET.fromstring(check_junit(hostile))
    (case,) = root.iter("testcase")
    # \x1b cannot stand in XML at all
    assert case.get("name") == HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    (failure,) = case
    assert failure.tag == "failure"
    assert "logits in backward" in str(failure.get("message"))


def test_an_update_in_words() -> None:
    case = next(case for case in EVERY.cases if case.status is Status.EQUAL)
    update = Update(Path("baseline"), ((Action.UNCHANGED, case),))
    assert render_update(update, Page()) == "baseline baseline: 1 unchanged"
