"""A log, read line by line in bounded memory: the first out-of-memory message with the stack above it."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from vramplan.errors import UsageError
from vramplan.oom.frames import Frame
from vramplan.oom.message import HEAD, MOST_LINES, OomMessage, read_message
from vramplan.oom.other_failures import Known, recognise

#: Lines kept for the stack above a message: Python's own limit is 1,000 frames, of up to three lines each.
KEPT = 3000
#: No line of a traceback is longer; longer ones (progress bars, binary files) are read in pieces.
LONGEST = 1 << 16

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: How launchers mark a line: torchrun, accelerate, `torchrun --tee`.
_RANK = re.compile(r"^\s*(\[(?:rank|default|node\d+:)?\d+\]:?|\(\w+ pid=\d+\)) ?")
_PYTHON = re.compile(r'(?:^|\s)File "([^"]+)", line (\d{1,9}), in (\S+)')  # a logger's time may stand before it
#: rich's traceback, as accelerate and axolotl print it.
_RICH = re.compile(r"(\S+\.py):(\d{1,9}) in (\S+)")
_TRACEBACK = "Traceback (most recent call last)"
#: What a traceback consists of below its first line, frames after a logger's time aside: indented text, rich's box.
_WITHIN = re.compile(r"[\s│╭╰]|$")


class Lines(Protocol):
    """What is read of a file."""

    def readline(self, limit: int, /) -> str:
        """The next line, or `limit` characters of it; empty at the end."""


@dataclass(frozen=True, slots=True)
class Reported:
    """An out-of-memory message in a log."""

    message: OomMessage
    stack: tuple[Frame, ...]
    """The outermost first; empty when no traceback stands above it."""
    line: int
    """Where it stands, from 1."""
    others: int
    """How many more messages follow."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """Another failure that a log tells of."""

    known: Known
    text: str
    line: int


def read_log(file: Lines, name: str) -> Reported | Recognised:
    """The first out-of-memory message of a log; without one, the first other failure that is known.

    Raises a UsageError that says what was looked for when there is neither.
    """
    lines = _Lines(file)
    before: deque[tuple[str, str]] = deque(maxlen=KEPT)
    recognised: Recognised | None = None
    for number, (rank, text) in lines:
        if HEAD.search(text):
            found = [text, *(later for _, (_, later) in lines.ahead(MOST_LINES - 1))]
            message = read_message(found)
            stack = _stack([line for other, line in before if other == rank])
            return Reported(message, stack, number, sum(1 for _, (_, later) in lines if HEAD.search(later)))
        if recognised is None and (known := recognise(text)) is not None:
            recognised = Recognised(known, " ".join(text.split())[:200], number)
        before.append((rank, text))
    if recognised is None:
        raise UsageError(
            f"{name}: no out-of-memory error in {lines.count:,} line{'s' if lines.count != 1 else ''}",
            hint="looked for 'CUDA out of memory. Tried to allocate', and for failures of cuBLAS, bitsandbytes and NCCL"
            " to get memory, 'Killed', and RAM that ran out; give the log with the traceback, or a memory snapshot",
        )
    return recognised


class _Lines:
    """Numbered lines without colours, each with its rank's mark apart; `ahead` looks at lines yet to come."""

    def __init__(self, file: Lines) -> None:
        self._file = file
        self._waiting: deque[tuple[int, tuple[str, str]]] = deque()
        self.count = 0

    def __iter__(self) -> Iterator[tuple[int, tuple[str, str]]]:
        while True:
            if self._waiting:
                yield self._waiting.popleft()
            elif (line := self._read()) is not None:
                yield line
            else:
                return

    def ahead(self, most: int) -> list[tuple[int, tuple[str, str]]]:
        """Up to `most` lines that come next; they still come."""
        while len(self._waiting) < most and (line := self._read()) is not None:
            self._waiting.append(line)
        return list(self._waiting)[:most]

    def _read(self) -> tuple[int, tuple[str, str]] | None:
        raw = self._file.readline(LONGEST)
        if not raw:
            return None
        self.count += 1
        text = _ANSI.sub("", raw)
        mark = _RANK.match(text)
        return self.count, (mark[1], text[mark.end() :]) if mark else ("", text)


def _stack(before: list[str]) -> tuple[Frame, ...]:
    """The frames of the last traceback in the lines above a message."""
    start = _start(before)
    frames = []
    for i, line in enumerate(before[start:], start):
        match = _PYTHON.search(line) or _RICH.search(line)
        if match is None:
            continue
        code = before[i + 1].strip() if i + 1 < len(before) and not _PYTHON.search(before[i + 1]) else ""
        frames.append(Frame(match[1], int(match[2]), match[3], code if _PYTHON.search(line) else ""))
    return tuple(frames)


def _start(before: list[str]) -> int:
    """Where the last traceback begins; where its first line was cut off, with what stands right above the message."""
    backwards = list(enumerate(before))[::-1]
    whole = next((i for i, line in backwards if _TRACEBACK in line), None)
    if whole is not None:
        return whole
    outside = (i for i, line in backwards if not (_WITHIN.match(line) or _PYTHON.search(line)))
    return next(outside, -1) + 1
