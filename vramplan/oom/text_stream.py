"""A log's bytes as text: UTF-8, or UTF-16 where a byte order mark says so, as Windows PowerShell 5.1's `>` writes."""

import codecs
import io
from typing import TYPE_CHECKING, BinaryIO, TextIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: As many bytes as the longest mark of UTF-16 has; UTF-8's own is for its codec to see.
MARK = 2
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_stream(start: bytes, file: BinaryIO) -> TextIO:
    """The text of `start`, which was read of `file`, and of what follows. A line ends where \\n stands, and nowhere
    else: a progress bar is one line. What is no text is replaced."""
    encoding = "utf-16" if start[:MARK] in _UTF16 else "utf-8-sig"
    whole = io.BufferedReader(_Prefixed(start, file))
    return io.TextIOWrapper(whole, encoding=encoding, errors="replace", newline="\n")


class _Prefixed(io.RawIOBase):
    """A stream that cannot be wound back, with what was read of it put in front again."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """As of a file: how many bytes were put into `buffer`."""
        room = memoryview(buffer)
        data = self._start[: len(room)] or self._file.read(len(room))
        self._start = self._start[len(room) :]
        room[: len(data)] = data
        return len(data)
