"""The committed reports are what today's code makes of the committed records."""

import re
from collections.abc import Callable

import pytest

from benchmarks.accuracy import REPORTS
from benchmarks.reports import emulated, index, peers, readme
from vramplan.cli import main


@pytest.mark.parametrize(
    ("name", "render"),
    [
        ("index.html", index),
        ("emulated.md", emulated),
        ("peers.md", lambda: peers()[0]),
        ("peers.svg", lambda: peers()[1]),
        ("README.md", readme),
    ],
)
def test_a_report_is_not_stale(name: str, render: Callable[[], bytes]) -> None:
    assert (REPORTS / name).read_bytes() == render(), f"reports/{name} is stale: run `make reports`"


def test_every_report_is_linked_and_every_link_leads_somewhere() -> None:
    text = (REPORTS / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert all((REPORTS / link).exists() for link in links)
    made = {path.name for path in REPORTS.iterdir() if path.suffix in (".md", ".html") and path.name != "README.md"}
    assert made <= set(links)


def test_the_scenarios_are_within_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = sorted(map(str, (REPORTS.parent / "scenarios").glob("*.yaml")))
    assert main(["check", *shipped, "--against", str(REPORTS / "baseline"), "--limit", "peak:0.1%"]) == 0, (
        capsys.readouterr().out
    )
