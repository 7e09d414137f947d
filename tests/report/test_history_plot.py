"""The page and the picture of a history are read back as markup; where Chromium is installed they are laid out."""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import escape
from pathlib import Path

import msgspec
import pytest
from samples import ON_CPU, RECORD
from test_report_html import CHROMIUM, EVIL, MEASURE, Reader, browse

from vramplan.cli import main
from vramplan.history import History, history
from vramplan.ledger import Component, Ledger, Phase
from vramplan.record import Outcome, Record, save_result
from vramplan.report.history_page import render_history_page
from vramplan.report.history_svg import render_history_svg
from vramplan.units import MIB


def at(date: str, more: int = 0, **changes: object) -> Record:
    """The record on a date, with `more` bytes of logits at its peak."""
    entries = tuple(
        replace(e, bytes=e.bytes + more) if (e.phase, e.component) == (Phase.BACKWARD, Component.LOGITS) else e
        for e in RECORD.ledger.entries
    )
    ledger = Ledger(entries, RECORD.ledger.steady)
    return replace(RECORD, **({"ledger": ledger, "environment": {"device": "cpu", "date": date}} | changes))  # type: ignore[arg-type]


#: 6117 MiB, then 100 more with another peft, then 60 more, then out of memory.
RELEASES = (
    at("2026-08-01T12:00:00+00:00"),
    at("2026-09-01T12:00:00+00:00", 100 * MIB, libraries={"peft": "0.22.0", "torch": "2.14.0+cpu"}),
    at("2026-10-01T12:00:00+00:00", 60 * MIB, libraries={"peft": "0.22.0", "torch": "2.14.0+cpu"}),
    at("2026-10-02T12:00:00+00:00", ledger=Ledger((), 0), outcome=Outcome.OOM),
)


def saved(folder: Path, *results: Record) -> Path:
    for i, result in enumerate(results):
        save_result(result, folder / f"{i}.json")
    save_result(ON_CPU, folder / "run-1" / "same.json")
    save_result(ON_CPU, folder / "run-2" / "same.json")
    return folder


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> History:
    return history(saved(tmp_path_factory.mktemp("records"), *RELEASES))


@pytest.fixture(scope="module")
def page(shown: History) -> str:
    return render_history_page(shown)


def test_the_numbers_in_the_page_are_the_records(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    values = [int(attributes["value"]) for attributes in reader.named("data")]
    # the two moves that have memory, each with its difference to the last move; then lowest and highest of each series
    assert values[:4] == [6217 * MIB, 100 * MIB, 6177 * MIB, -40 * MIB]
    predicted = ON_CPU.ledger.peak
    assert values[4:] == [predicted, predicted, 6117 * MIB, 6217 * MIB]
    words = "".join(reader.text)
    assert "peft 0.21.2 -> 0.22.0" in words
    assert "ok -> oom" in words


def test_only_what_moved_is_drawn_twice_for_wide_and_narrow(page: str, shown: History) -> None:
    assert page.count("<svg ") == 2
    assert [bool(series.moves) for series in shown.series] == [False, True]
    ids = [attributes["id"] for _, attributes in Reader(page).elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_step_of_the_line_is_a_records_peak(shown: History) -> None:
    picture = ET.fromstring(render_history_svg(shown))
    svg = "{http://www.w3.org/2000/svg}"
    (plot,) = picture.findall(f"{svg}svg")
    line = next(path.get("d", "") for path in plot.iter(f"{svg}path") if path.get("style", "").count("var(--round)"))
    heights = list(dict.fromkeys(float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", line)))
    first, grown, less = heights
    # downwards in SVG: 100 MiB up, 40 of them down again
    assert (first - grown) / (less - grown) == pytest.approx(100 / 40, rel=1e-3)


def test_nothing_is_fetched_and_no_value_becomes_markup(tmp_path: Path) -> None:
    scenario = msgspec.structs.replace(RECORD.scenario, name=EVIL)
    evil = [replace(record, scenario=scenario) for record in RELEASES]
    found = history(saved(tmp_path, *evil))
    for text in (render_history_page(found), render_history_svg(found)):
        assert not re.search("<(script|img)", text)
        assert not re.search(r"<[^>]*(src|href)=\"(?!#)", text)
    assert EVIL in "".join(Reader(render_history_page(found)).text)
    assert EVIL in "".join(ET.fromstring(render_history_svg(found)).itertext())


def test_the_same_records_are_the_same_file(tmp_path: Path) -> None:
    """Nothing of the clock, of addresses or of the order of a set is in it."""
    folder = saved(tmp_path, *RELEASES)
    first, second = history(folder), history(folder)
    assert render_history_page(first) == render_history_page(second)
    assert render_history_svg(first) == render_history_svg(second)


def test_results_without_dates_stand_in_the_order_of_their_files(tmp_path: Path) -> None:
    text = render_history_svg(history(saved(tmp_path, at(""), at("", 100 * MIB))))
    assert "result 1" in text
    assert "result 2" in text


def test_the_command_writes_what_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("records"), *RELEASES)
    assert main(["history", "records", "--html", "a.html", "--svg", "a.svg"]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 scenarios moved\nwrote a.html (" in out
    assert "wrote a.svg (" in out
    assert Path("a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert main(["history", "records", "--json", "--svg", "b.svg"]) == 0
    assert capsys.readouterr().out.lstrip().startswith("{")
    assert Path("b.svg").read_bytes() == Path("a.svg").read_bytes()
    assert main(["history", "records", "--html", "records"]) == 2
    assert "--html: cannot write 'records'" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path) -> None:
    saved(tmp_path / "records", *RELEASES)
    program = (
        "import sys; sys.modules['matplotlib'] = None; import vramplan.cli as c;"
        "sys.exit(c.main(['history', 'records', '--svg', 'x.svg']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "pip install 'vramplan[report]'" in done.stderr
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out(page: str, tmp_path: Path, width: int) -> None:
    assert shutil.which(CHROMIUM or "")
    measuring = escape(re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"{MEASURE}</body>"))
    file = tmp_path / "page.html"
    file.write_text(f'<title></title><iframe style="width:{width}px;border:0" srcdoc="{measuring}"></iframe>', "utf-8")
    dom, console = browse(file, tmp_path, "--window-size=1500,900")
    assert re.findall("<title>([^<]*)</title>", dom)[0] == f"{width} []"
    assert console == ""
