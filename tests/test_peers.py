"""The comparison with the field's estimators: what is asked, and how answers are scored. Asking needs the index."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.ask import ADAPTERS, Answer, Answers
from benchmarks.peers.render import page, score
from benchmarks.peers.rows import Row, rows
from benchmarks.peers.tools import TOOLS

REPORTS = Path(__file__).parent.parent / "reports"


def row(name: str, source: str = "t4") -> Row:
    return Row(
        id=name, set=source, model="", config={}, parameters=0, scenario={}, allocated=1_000_000, reserved=2_000_000
    )


def test_errors_are_signed_and_means_are_of_magnitudes() -> None:
    given = (Answer("a", 1_010_000, 2_100_000, 0.002), Answer("b", 970_000, 1_800_000, 0.004))
    found = score(Answers("tool", given, ()), [row("a"), row("b")])
    # +1 % and -3 % allocated: 2 % in the mean; +5 % and -10 % reserved: 7.5 %
    assert found.means == pytest.approx((2.0, 7.5))
    assert found.toward_oom == pytest.approx(-10.0)
    assert found.milliseconds == pytest.approx(3.0)


def test_a_tool_that_never_says_too_little_misses_nothing_toward_out_of_memory() -> None:
    assert score(Answers("tool", (Answer("a", 1, 2_000_001, 1.0),), ()), [row("a")]).toward_oom == 0.0


def test_sources_are_scored_apart() -> None:
    given = (Answer("a", 1_010_000, 2_000_000, 1.0), Answer("b", 1_050_000, 2_000_000, 1.0))
    both = [row("a", "t4"), row("b", "rtx4080")]
    found = score(Answers("tool", given, ()), both, only="rtx4080")
    assert found.means == pytest.approx((5.0, 0.0))


def test_refusals_are_on_the_page() -> None:
    answers = Answers("tool", (Answer("a", 1_000_000, 2_000_000, 1.0),), (("b", "ValueError: no"),))
    text = page([score(answers, [row("a"), row("b")])], [answers], [row("a"), row("b")], "2026-01-01")
    assert "- tool, b: ValueError: no" in text
    assert "| b | 0.00 | - |" in text


def test_every_measured_configuration_is_asked_once_with_its_exact_parameter_count(tmp_path: Path) -> None:
    found = {item.id: item for item in rows(tmp_path)}
    assert len(found) == 26
    tiny = found["t4-nb-00"]
    assert tiny.parameters == 1_100_048_384  # the hub's safetensors metadata of TinyLlama-1.1B
    assert json.loads((Path(tiny.model) / "config.json").read_text()) == tiny.config


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_has_an_adapter_that_parses_and_a_place_on_the_committed_page(tool) -> None:
    assert compile((ADAPTERS / tool.adapter).read_text(), tool.adapter, "exec")
    assert tool.requirement in (REPORTS / "peers.md").read_text()


def test_an_adapter_reports_what_its_tool_refuses() -> None:
    program = "from common import answer\ndef ask(question):\n    raise ValueError('unknown model')\nanswer(ask)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([{"id": "a"}]),
        capture_output=True,
        text=True,
        cwd=ADAPTERS,
        check=True,
    )
    assert json.loads(done.stdout) == {"id": "a", "refused": "ValueError: unknown model"}
