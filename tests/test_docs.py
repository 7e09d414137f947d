"""The pages in docs/ tell the truth: their outputs and numbers are the commands' answers, their plots the predictions'.

What differs is renewed by `make docs`; the sentences around it are for a person to read again.
"""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.docs.facts import Facts, written
from benchmarks.docs.pages import PAGES, blocks_not_run, renewed, untied
from benchmarks.docs.picture import Plot, render
from benchmarks.docs.plots import PLOTS
from benchmarks.docs.shell import Shell
from vramplan import cli
from vramplan.commands import all_commands

DOCS = Path(__file__).parent.parent / "docs"
TEXTS = {name: (DOCS / name).read_text(encoding="utf-8") for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_every_output_and_every_number_is_what_the_command_says(name: str) -> None:
    assert TEXTS[name] == renewed(TEXTS[name]), "see `make docs`"


@pytest.mark.parametrize("name", PAGES)
def test_no_number_stands_without_a_command(name: str) -> None:
    assert untied(TEXTS[name]) == []
    assert blocks_not_run(TEXTS[name]) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short(name: str) -> None:
    assert len(TEXTS[name].splitlines()) <= 120


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_every_plot_is_what_the_predictions_draw(plot: Plot) -> None:
    assert (DOCS / "plots" / f"{plot.name}.svg").read_text(encoding="utf-8") == render(plot), "see `make docs`"


def test_every_plot_is_shown_once_with_words_in_its_place() -> None:
    pictures = re.findall(r"!\[([^]]*)\]\(plots/([^)]+)\.svg\)", "".join(TEXTS.values()))
    assert sorted(name for _, name in pictures) == sorted(plot.name for plot in PLOTS)
    assert sorted(file.stem for file in (DOCS / "plots").iterdir()) == sorted(plot.name for plot in PLOTS)
    assert all(len(words.split()) >= 8 for words, _ in pictures)


def test_every_command_in_a_sentence_is_one_that_the_parser_knows() -> None:
    commands = re.findall(r"`vramplan ([^`\n]+)`", "".join(TEXTS.values()))
    assert commands
    for words in map(shlex.split, commands):
        if len(words) == 1:
            assert words[0] in [known.name for known in all_commands()]
        else:
            assert cli.build_parser(all_commands()).parse_args(words).command == words[0]


def test_every_session_of_python_answers_what_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    session = "\n".join(re.findall(r"```pycon\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(DOCS.parent)
    shown: list[str] = []
    test = doctest.DocTestParser().get_doctest(session, {}, "python.md", None, None)
    found = doctest.DocTestRunner().run(test, out=shown.append)
    assert found.attempted > 20
    assert not found.failed, "".join(shown)


def test_every_link_leads_somewhere() -> None:
    pages = {file.name: file.read_text(encoding="utf-8") for file in DOCS.glob("*.md")}
    links = [(name, link) for name, text in pages.items() for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    assert links
    assert [(name, link) for name, link in links if not (DOCS / link).exists()] == []


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = {file.name for file in DOCS.glob("*.md")} - {"README.md"}
    assert set(PAGES) <= pages
    assert {page for page in pages if f"]({page})" not in index} == set()


# How the pages are held: each way to be wrong is found.

QUANT = "<!-- facts\nq = vramplan quant llama-2-7b --quant-type nf4 --block-size 64 --json\n-->\n"


def test_a_wrong_number_is_replaced_by_the_commands_in_its_own_decimals_and_unit() -> None:
    page = QUANT + "**9.999**<!-- = q.formats[0].bits_per_parameter.total --> bits, 1 %<!-- = 0.127 / 4 -->"
    # 4 + 8/64 + 32/(64 x 256) = 4.12695 bits; 0.127 / 4 = 3.175 %
    expected = page.replace("9.999", "4.127").replace("1 %", "3 %")
    assert renewed(page) == expected


def test_wrong_output_is_replaced_and_files_stay_for_the_next_command() -> None:
    commands = ["vramplan predict llama-2-7b --gpu t4 --json > /dev/null", "echo $?", "vramplan predict nothing.yaml"]
    page = "```console\n" + "".join(f"$ {command}\nout of date\n" for command in commands) + "```\n"
    lines = renewed(page).splitlines()
    assert lines[1:4] == [f"$ {commands[0]}", "$ echo $?", "0"]
    assert lines[4].endswith("nothing.yaml")
    assert lines[5].startswith("error: no such file: nothing.yaml")
    assert "out of date" not in lines


def test_a_sentence_that_is_no_longer_true_is_refused() -> None:
    assert renewed(QUANT + "<!-- holds: q.formats[0].double -->")
    with pytest.raises(ValueError, match=r"no longer true: q\.formats"):
        renewed(QUANT + "<!-- holds: q.formats[1].double -->")


def test_a_marker_that_gives_no_number_or_names_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="gives no number"):
        renewed(QUANT + "1<!-- = q.formats[0].format -->")
    with pytest.raises(AttributeError, match="no key 'sizes'"):
        renewed(QUANT + "1<!-- = q.sizes -->")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("It takes 5 GiB.", True),
        ("It takes 5.00 GiB<!-- = a.b -->.", False),
        ("5 GiB <!-- = a.b -->", True),  # the marker does not touch it
        ("| 5 | <!-- a comment with 7 -->", True),
        ("Llama 3.1 8B in 4-bit numbers, bf16, NF4, on an RTX 4090", False),
        ("a 7B has 7 billion", True),
        ("`--batch 2` and [a link](page2.md)", False),
        ("![a plot of 3 models](plots/x.svg)", True),
        ("<!-- holds: a.b > 3 -->", False),
        ("half of it", False),
    ],
)
def test_a_number_without_a_marker_is_found(line: str, found: bool) -> None:
    assert bool(untied(line)) is found


@pytest.mark.parametrize(
    ("value", "like", "expected"),
    [
        (3 * 2**30 + 2**28, "1.00 GiB", "3.25 GiB"),
        (1_500_000_000, "0.0 GB", "1.5 GB"),
        (6_738_415_616, "1", "6,738,415,616"),
        (6_738_415_616, "7.00 billion", "6.74 billion"),
        (0.3651, "40%", "37%"),
        (12, "+3", "+12"),
        (-0.0118, "0.1 %", "-1.2 %"),
    ],
)
def test_values_are_written_as_the_number_that_stands_there(value: float, like: str, expected: str) -> None:
    assert written(value, like) == expected


def test_entries_are_found_by_phase_and_component() -> None:
    entries = [{"phase": "load", "component": "weights", "bytes": 7}]
    facts = Facts({"phases": {"load": {}}, "entries": entries})
    assert facts.at("load", "weights") == 7
    assert facts.at("load", "logits") == 0
    with pytest.raises(KeyError, match="no phase 'laod': load"):
        facts.at("laod", "weights")


def test_the_shell_cuts_output_as_a_real_one_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one 1\ntwo 2\nthree 3\n")
    shell = Shell(tmp_path)
    assert shell.run("cat file | head -n 2") == "one 1\ntwo 2"
    assert shell.run("cat file | tail -n 2 | grep two") == "two 2"


@pytest.mark.parametrize("line", ["ls", "vramplan list stacks | sort", "cat file | grep ^t"])
def test_the_shell_refuses_what_it_does_not_do(line: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    with pytest.raises(ValueError, match="not"):
        Shell(tmp_path).run(line)
