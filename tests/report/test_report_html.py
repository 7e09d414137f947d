"""The page is read back as HTML; where Chromium is installed it is also laid out."""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from report_samples import FULL, ON_CARD, SINGLE, STUDIED, named, report
from samples import FAILED, ON_CPU, RECORD

from vramplan.ledger import Component
from vramplan.report.html.markup import Html, el, joined, quantity
from vramplan.report.html.page import render_page
from vramplan.report.report_facts import Report
from vramplan.scenario import Scenario
from vramplan.units import MIB

EVIL = "<script>alert('&\"')</script><img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img", "input", "link"}


class Reader(HTMLParser):
    """Every element with its attributes, and that all of them are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(FULL)


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_children_and_attributes_are_escaped() -> None:
    assert el("p", "a<b", title='"x"') == '<p title="&quot;x&quot;">a&lt;b</p>'
    assert el("p", el("b", "&"), class_="") == "<p><b>&amp;</b></p>"
    assert joined(["<", Html("<br>")]) == "&lt;<br>"
    assert quantity(5, "5 B") == '<data value="5">5 B</data>'


def test_every_element_is_closed(reader: Reader) -> None:
    assert reader.open == []


def test_the_numbers_in_the_page_are_the_records(reader: Reader) -> None:
    shown = Counter(int(attributes["value"]) for attributes in reader.named("data"))
    for result in (RECORD, ON_CARD, SINGLE, ON_CPU):
        for entry in result.ledger.entries:
            assert shown[entry.bytes], entry
        for phase in result.ledger.phases:
            assert shown[result.ledger.allocated(phase)], phase
    assert set(ON_CARD.reserved.values()) <= set(shown)


def test_every_cell_of_a_record_is_in_its_own_table(page: str) -> None:
    own = page[page.index('id="r2"') : page.index('id="r3"')]
    table = Reader(own[own.index("<table") : own.index("</table>") + 8])
    values = Counter(int(attributes["value"]) for attributes in table.named("data"))
    expected = Counter(entry.bytes for entry in ON_CARD.ledger.entries)
    expected.update(ON_CARD.ledger.allocated(phase) for phase in ON_CARD.ledger.phases)
    expected.update(ON_CARD.reserved.values())
    assert values == expected


def test_bars_are_as_long_as_the_record_says(page: str) -> None:
    # SINGLE in backward, MiB: 6407 measured, the longer bar; constants 386 of them, 386 / 6407 = 6.02 %
    bars = page[page.index('<section id="components"') : page.index('<section id="runs"')]
    assert '<i class="quant-state" style="width:6.02%" title="quant-state 386.00 MiB"></i>' in bars


def test_studies_are_sections_with_the_numbers_of_their_pairs() -> None:
    page = render_page(STUDIED)
    reader = Reader(page)
    assert reader.open == []
    sections = [attributes["id"] for attributes in reader.named("section")]
    assert [name for name in sections if name in ("double", "paged", "peaks", "verdicts")] == [
        "double",
        "paged",
        "peaks",
        "verdicts",
    ]
    paged = page[page.index('<section id="paged"') : page.index('<section id="peaks"')]
    values = [int(attributes["value"]) for attributes in Reader(paged).named("data")]
    # states in the allocator on both sides, managed, outside the allocator on both sides, saved at the peak
    assert values == [304 * MIB, 304 * MIB, 400 * MIB, 500 * MIB, 750 * MIB, 0]
    assert "beyond the spread" in paged
    verdicts = page[page.index('<section id="verdicts"') : page.index('<section id="results"')]
    assert verdicts.count("<tr>") == 6  # the head, and the five runs with a limit
    assert "1 ran out of memory: wrong" in verdicts


def test_a_report_without_pairs_has_no_sections_for_them() -> None:
    assert not {"double", "paged", "peaks", "verdicts"} & {
        attributes["id"] for attributes in Reader(render_page(report(RECORD))).named("section")
    }


def test_tiles_name_the_worst_error(page: str) -> None:
    # 100 MiB too little of 6117
    assert "1.63%" in page[page.index("worst error") :][:200]
    assert "3 of 3" in page


def test_values_from_files_do_nothing() -> None:
    architecture = {**ON_CPU.scenario.model.config, "model_type": "llama"}
    model = msgspec.structs.replace(ON_CPU.scenario.model, name=EVIL, config=architecture)
    scenario = msgspec.structs.replace(ON_CPU.scenario, name=EVIL, model=model)
    evil = replace(
        RECORD,
        scenario=scenario,
        environment={EVIL: EVIL, "device": "cpu", "gpu": EVIL},
        libraries={EVIL: EVIL},
        warnings=(EVIL,),
    )
    failed = replace(FAILED, scenario=scenario, note=EVIL)
    traced = replace(named(ON_CPU, EVIL), engine=EVIL)
    page = render_page(report(evil, SINGLE, failed, traced, skipped=(EVIL,)))
    assert not re.search("<(script|img)", page)
    reader = Reader(page)
    assert not reader.named("script", "img", "iframe", "object", "embed", "link", "base", "form")
    assert not [key for _, attributes in reader.elements for key in attributes if key.startswith("on")]
    assert EVIL in "".join(reader.text)


def test_nothing_is_fetched(page: str, reader: Reader) -> None:
    assert not {"src", "srcset", "xlink:href", "action"} & {key for _, found in reader.elements for key in found}
    targets = [attributes["href"] for attributes in reader.named("a", "use") if "href" in attributes]
    assert targets
    assert all(target.startswith("#") for target in targets)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page
    # what remains of addresses are the names of SVG's namespaces
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert any("default-src 'none'" in attributes.get("content", "") for attributes in reader.named("meta"))


def test_every_link_has_its_target_once(reader: Reader) -> None:
    ids = Counter(attributes["id"] for _, attributes in reader.elements if "id" in attributes)
    assert max(ids.values()) == 1
    links = {attributes["href"].removeprefix("#") for attributes in reader.named("a", "use") if "href" in attributes}
    described = {name for _, a in reader.elements for name in a.get("aria-labelledby", "").split()}
    assert links | described <= set(ids)


def test_a_mark_leads_to_its_record(reader: Reader) -> None:
    # three records, two panels, two drawings; in the order of the keyboard they are the table's alone
    marks = [a["href"] for a in reader.named("a") if "tabindex" in a]
    assert Counter(marks) == {"#r1": 4, "#r2": 4, "#r3": 4}
    assert not [a for a in reader.named("a") if "target" in a]


def test_several_timelines_stand_beside_each_other() -> None:
    gemma = msgspec.structs.replace(ON_CPU.scenario, model=Scenario.load("gemma-2-9b").model)
    reader = Reader(render_page(report(ON_CPU, replace(ON_CPU, scenario=gemma))))
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len([name for name in ids if name.startswith("vp")]) == 8  # title and description of 2 x 2 drawings
    assert len(ids) == len(set(ids))


def test_headings_begin_at_one_and_skip_no_level(reader: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_picture_is_described(reader: Reader) -> None:
    assert all(attributes.get("aria-labelledby") for attributes in reader.named("svg"))
    bars = [a for a in reader.named("span") if a.get("class") == "bar"]
    assert bars
    assert all(bar["role"] == "img" and "weights" in bar["aria-label"] for bar in bars)
    assert all(scope in ("row", "col") for scope in (a.get("scope") for a in reader.named("th")))


def test_plots_follow_the_page_s_tones(page: str) -> None:
    assert "var(--fg)" in page[page.index('id="accuracy"') :]
    assert not re.search(r"#0102\w\w|DejaVu", page)


def test_the_same_report_is_the_same_page(page: str) -> None:
    assert render_page(FULL) == page


def test_a_hundred_records_are_less_than_a_megabyte_and_a_half() -> None:
    records = [named(record, f"run {i}") for i in range(50) for record in (RECORD, ON_CARD)]
    assert len(render_page(report(*records)).encode()) < 1.5 * 2**20


@pytest.mark.parametrize(
    "small",
    [report(RECORD), report(FAILED), report(ON_CPU), report(FAILED, ON_CPU)],
    ids=["record", "failed", "prediction", "both"],
)
def test_little_to_show_is_a_page_too(small: Report) -> None:
    reader = Reader(render_page(small))
    assert reader.open == []


def test_far_apart_errors_and_large_ones() -> None:
    twice = replace(
        RECORD,
        ledger=replace(
            RECORD.ledger,
            entries=tuple(
                replace(e, bytes=2 * e.bytes) if e.component is Component.UNQUANTIZED else e
                for e in RECORD.ledger.entries
            ),
        ),
    )
    records = [named(RECORD, f"run {i}") for i in range(9)]
    # 1024 MiB more in backward: 6017 of 7141
    assert f"{abs(6017 / 7141 - 1):.2%}" in render_page(report(twice, *records))
    assert RECORD.ledger.peak == 6117 * MIB


def test_one_large_error_among_exact_ones_is_drawn_whole() -> None:
    exact = [replace(named(RECORD, f"run {i}"), ledger=ON_CPU.ledger) for i in range(9)]
    page = render_page(report(RECORD, *exact))
    plot = page[page.index('aria-labelledby="scatter1100') : page.index('aria-labelledby="scatter372')]
    assert ">-1<" in plot, "a tick is a number of per cent, not a power of ten"
    top, height = re.findall(r'<rect [^>]*y="([\d.]+)"[^>]*height="([\d.]+)"', plot[plot.index("clipPath") :])[-1]
    marks = [float(y) for y in re.findall(r'<a href="#r\d+".*?<use [^>]* y="([\d.]+)"', plot)]
    assert len(marks) == 2 * 10
    assert max(marks) + 3.5 < float(top) + float(height), "half a mark's height is inside the axes"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Writes what sticks out of the window or of its own box into the title.
MEASURE = """<script>
const wide = document.documentElement.clientWidth, out = [];
for (const e of document.querySelectorAll('body *')) {
  const box = e.getBoundingClientRect();
  if (e.closest('.skip, thead')) continue;
  if (box.width && box.right > wide + 1) out.push('beyond: ' + e.tagName + ' ' + e.textContent.slice(0, 40));
  if (!e.closest('svg, .bar') && e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    out.push('clipped: ' + e.tagName + ' ' + e.textContent.slice(0, 40));
}
for (const t of document.querySelectorAll('svg text')) {
  const box = t.getBoundingClientRect(), own = t.ownerSVGElement.getBoundingClientRect();
  if (box.width && (box.left < own.left - 1 || box.right > own.right + 1)) out.push('drawn: ' + t.textContent);
}
parent.document.title = wide + ' ' + JSON.stringify(out);
</script>"""


def browse(page: Path, folder: Path, *options: str, fragment: str = "") -> tuple[str, str]:
    """The document after it ran, and what the browser's console said."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            *options,
            "--dump-dom",
            page.as_uri() + fragment,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("shown", [FULL, STUDIED], ids=["full", "studies"])
def test_nothing_sticks_out(shown: Report, tmp_path: Path, width: int) -> None:
    page = render_page(shown)
    unfolded = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("<details>", "<details open>")
    measuring = escape(unfolded.replace("</body>", f"{MEASURE}</body>"))
    file = tmp_path / "page.html"  # in a frame, since no window is narrower than 500 pixels
    file.write_text(f'<title></title><iframe style="width:{width}px;border:0" srcdoc="{measuring}"></iframe>', "utf-8")
    dom, _ = browse(file, tmp_path, "--window-size=1500,900")
    assert re.findall("<title>([^<]*)</title>", dom)[0] == f"{width} []"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_console_stays_empty(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    dom, console = browse(file, tmp_path)
    assert console == ""
    assert dom.count("<details") == page.count("<details")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_link_unfolds_its_record(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    dom, _ = browse(file, tmp_path, fragment="#r2")
    details = dom[dom.index('<section id="details"') :]
    assert details.count("<details open") == 1
    assert details.index("<details open") < details.index('id="r2"') < details.index('id="r3"')
