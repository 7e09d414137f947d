"""The rows of a file, one after the other, with where each stands. Nothing here holds more than a piece of the file."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import msgspec

from vramplan.dataset.npy import read_npy
from vramplan.dataset.parquet import read_parquet
from vramplan.dataset.rows import ONE_A_LINE, Malformed
from vramplan.errors import UsageError

#: A line that is longer is no sample: 16 MiB are some four million tokens.
LONGEST_LINE = 2**24

Row = tuple[int, object]
"""Number of the line or row, counted from 1, and what it holds: a Malformed if it cannot be read."""
Reader = Callable[[IO[bytes], str, str], Iterator[Row]]
"""Rows of a file, its name, and the field that was named."""


class Source:
    """A file of samples."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = _reader(path)
        self._read, self._size = 0, 0

    @property
    def share(self) -> float:
        """How much of the file has been read."""
        return self._read / self._size if self._size else 0.0

    def rows(self, field: str) -> Iterator[Row]:
        """The file's rows, read as its ending says, unpacked first where that is .gz."""
        try:
            with self._path.open("rb") as raw:
                self._size = self._path.stat().st_size
                packed = self._path.suffix.lower() == ".gz"
                file = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
                for row in self._reader(file, self._path.name, field):
                    if row[0] % 4096 == 0:
                        self._read = raw.tell()
                    yield row
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UsageError(f"{self._path} is not a whole gzip file: {error}", hint="compress it again") from error
        except OSError as error:
            raise _unreadable(self._path, error) from error


def check_readable(path: Path) -> None:
    """Refuse what is no file of a known kind, before the work begins."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory, not a file", hint=f"files that are read: {', '.join(_READERS)}")
    _reader(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot read {path}: {error.strerror or error}", hint="give a file that exists")


def _reader(path: Path) -> Reader:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".json":
        raise UsageError(f"{path}: a .json file is not read a line at a time", hint=ONE_A_LINE)
    if suffix not in _READERS:
        raise UsageError(f"{path}: cannot tell what kind of file it is", hint=f"known endings: {', '.join(_READERS)}")
    return _READERS[suffix]


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | Malformed]]:
    """Lines that are not empty, without a byte order mark; one that is too long is passed over."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (more := file.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                pass
            yield number, Malformed(f"longer than {LONGEST_LINE // 2**20} MiB", hint=_unless_array(number, line))
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


def _json_lines(file: IO[bytes], name: str, field: str) -> Iterator[Row]:
    decode = msgspec.json.Decoder().decode
    for number, line in _lines(file):
        if isinstance(line, Malformed):
            yield number, line
            continue
        try:
            yield number, decode(line)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            yield number, _no_json(number, line, error)


def _no_json(number: int, line: bytes, error: Exception) -> Malformed:
    text = _text(line)
    if isinstance(text, Malformed):
        return text
    return Malformed(f"not JSON: {' '.join(str(error).split())[:120]}", hint=_unless_array(number, line))


def _unless_array(number: int, line: bytes) -> str:
    """What to do about a file that begins as an array does; empty for others."""
    return ONE_A_LINE if number == 1 and line.lstrip().startswith(b"[") else ""


def _text_lines(file: IO[bytes], name: str, field: str) -> Iterator[Row]:
    for number, line in _lines(file):
        text = line if isinstance(line, Malformed) else _text(line)
        yield number, text.rstrip("\r\n") if isinstance(text, str) else text


def _text(line: bytes) -> str | Malformed:
    """The text of a line, which is a Malformed in another encoding than UTF-8."""
    if b"\0" in line:
        return _not_utf8("UTF-16")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return _not_utf8("LATIN1")


def _not_utf8(likely: str) -> Malformed:
    return Malformed("not UTF-8", hint=f"convert it, perhaps so: iconv -f {likely} -t UTF-8 old.jsonl > new.jsonl")


def _comma_separated(file: IO[bytes], name: str, field: str) -> Iterator[Row]:
    return _table(file, name, ",")


def _tab_separated(file: IO[bytes], name: str, field: str) -> Iterator[Row]:
    return _table(file, name, "\t")


def _table(file: IO[bytes], name: str, delimiter: str) -> Iterator[Row]:
    """Rows as mappings by the first line's names; a single column of numbers needs no first line."""
    csv.field_size_limit(LONGEST_LINE)
    decoded = (_decoded(line, name) for line in iter(lambda: file.readline(LONGEST_LINE), b""))
    reader = csv.reader(decoded, delimiter=delimiter)
    head: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, Malformed(f"not a table: {error}")
            continue
        if cells is None:
            return
        if head is None:
            head = [cell.strip() for cell in cells]
            if len(head) == 1 and _is_number(head[0]):
                yield reader.line_num, head[0]
            continue
        if cells:
            yield reader.line_num, _cells(head, cells)


def _cells(head: list[str], cells: list[str]) -> object:
    if len(head) == len(cells) == 1 and _is_number(head[0]):
        return cells[0]
    if len(head) != len(cells):
        return Malformed(f"{len(cells)} cells, and the first line names {len(head)}")
    return dict(zip(head, cells, strict=True))


def _decoded(line: bytes, name: str) -> str:
    text = _text(line.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(text, Malformed):
        raise UsageError(f"{name} is {text}", hint=text.hint)
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _npy(file: IO[bytes], name: str, field: str) -> Iterator[Row]:
    return enumerate(read_npy(file, name), 1)


def _parquet(file: IO[bytes], name: str, field: str) -> Iterator[Row]:
    return enumerate(read_parquet(file, name, field), 1)


_READERS: dict[str, Reader] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
    ".txt": _text_lines,
    ".npy": _npy,
}
