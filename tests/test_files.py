"""Reading what somebody else wrote, and refusing places that cannot be written."""

import os
from pathlib import Path

import pytest

from vramplan.cli import main
from vramplan.errors import UsageError
from vramplan.files import read_object, user_path, write_together
from vramplan.report.report_file import check_directory, check_place, write_whole


def test_an_object_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"name": "żółw", "sizes": [1, 2]}', encoding="utf-8")
    assert read_object(file, hint="") == {"name": "żółw", "sizes": [1, 2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not UTF-8 text: invalid start byte at byte 0"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds a list, not an object"),
        (b"null", "holds nothing, not an object"),
    ],
)
def test_anything_else_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        read_object(file, hint="give another", where="model: ")
    assert raised.value.message.startswith(f"model: {file} {message}")
    assert raised.value.hint == "give another"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*: No such file or directory"):
        read_object(tmp_path / "missing.json", hint="")
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory"):
        read_object(tmp_path, hint="")


def test_an_endless_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)  # takes no room on the disk
    with pytest.raises(UsageError, match=r"more than 64 MiB"):
        read_object(file, hint="")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("~no-such-user/x", "determine home"), ("x" * 5000, "File name too long")],
)
def test_what_no_file_can_be_called_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as raised:
        user_path(text)
    assert len(raised.value.message) < 200


def test_a_path_is_taken_as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_path("~/runs/a.json") == Path("/home/somebody/runs/a.json")
    assert user_path("runs/missing.json") == Path("runs/missing.json")


@pytest.mark.parametrize("name", ["~no-such-user/x", "x" * 5000])
@pytest.mark.parametrize(
    "command",
    [
        "predict {}",
        "predict llama-2-7b --set model={}",
        "predict llama-2-7b --lengths {}",
        "predict llama-2-7b --data a.txt --tokenizer {}",
        "predict llama-2-7b --timeline {}.html",
        "plan llama-2-7b --gpu t4 --write {}",
        "quant --weights {}.safetensors",
        "quant --svg {}",
        "explain-oom {}",
        "compare {}",
        "compare {} llama-2-7b",
        "check {} --against .",
        "check llama-2-7b --against {}",
        "check llama-2-7b --against . --write {}.md",
        "history {}",
        "report {}",
        "measure llama-2-7b --out {}",
        "suite {} --dry-run",
    ],
)
def test_every_command_refuses_them(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.format(name).split()) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 2
    assert err.startswith("error: ")


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    check_place(tmp_path / "new.html", option="--html")
    with pytest.raises(UsageError, match=r"--html: cannot write '.*': it is a directory"):
        check_place(tmp_path, option="--html")
    with pytest.raises(UsageError, match=r"there is no directory '.*nowhere'"):
        check_place(tmp_path / "nowhere" / "new.html", option="--html")
    with pytest.raises(UsageError, match=r"--html: cannot write '/proc/new.html'"):  # where root's rights say nothing
        check_place(Path("/proc/new.html"), option="--html")


def test_a_directory_for_several_files_is_made_where_one_can_be(tmp_path: Path) -> None:
    check_directory(tmp_path / "new" / "records", option="--out")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "records", Path("/proc/records")):
        with pytest.raises(UsageError, match=f"--out: cannot write into '{place}'"):
            check_directory(place, option="--out")


@pytest.mark.parametrize(
    "command",
    [
        "predict llama-2-7b --timeline {}.svg",
        "plan llama-2-7b --gpu t4 --write {}.yaml",
        "quant --svg {}.svg",
        "check llama-2-7b --against missing --write {}.md",
        "history missing --html {}.html",
        "report missing --csv {}.csv",
        "measure llama-2-7b --out {}.json",
    ],
)
@pytest.mark.parametrize("place", ["nowhere/x", "/proc/x"])
def test_every_command_refuses_a_place_before_it_looks_at_anything_else(
    command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command.format(place).split()) == 2
    assert f"cannot write '{place}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_names_its_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--html: cannot write '.*': Is a directory"):
        write_whole(tmp_path, b"", option="--html")


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("before")
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / "real.html")
    write_whole(link, b"after", option="--html")
    assert link.is_symlink()
    assert (tmp_path / "real.html").read_bytes() == b"after"


def test_a_device_is_written_to_and_its_answer_told(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(UsageError, match="No space left on device"):
        write_whole(full, b"page", option="--html")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_rights_that_this_process_gives(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "new.html", b"page", option="--html")
    finally:
        os.umask(before)
    assert (tmp_path / "new.html").stat().st_mode & 0o777 == mode


def test_a_file_that_is_replaced_keeps_its_rights(tmp_path: Path) -> None:
    file = tmp_path / "kept.html"
    file.touch()
    file.chmod(0o640)
    write_whole(file, b"page", option="--html")
    assert file.read_bytes() == b"page"
    assert file.stat().st_mode & 0o777 == 0o640


def test_of_several_files_none_is_replaced_when_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_together({tmp_path / "a": "after", tmp_path / "file" / "b": "after"})
    assert (tmp_path / "a").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]
