"""Going through a file once: how long its samples are. Only counts are kept, however large the file is."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vramplan.dataset.lengths import Lengths
from vramplan.dataset.packing import Packer
from vramplan.dataset.rows import Chat, Malformed, Text, read_row
from vramplan.dataset.sources import Source
from vramplan.dataset.tokens import Tokens
from vramplan.errors import UsageError

#: So many texts, or characters of them, are tokenised together.
_TEXTS, _CHARACTERS = 512, 2**20
#: How many kinds of malformed lines are named.
_NAMED = 5
#: When so many lines come without one that can be read, the file is taken to be another one.
_HOPELESS = 1000


@dataclass(frozen=True, slots=True)
class Data:
    """Where samples are read from, and how."""

    path: Path
    tokenizer: Path | None = None
    """Directory of the tokenizer, for text."""
    field: str = ""
    """The field or column that holds a sample; empty for the known ones."""
    skip_bad: bool = False
    """Whether malformed lines are left out instead of refused."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds."""

    name: str
    """The file's name."""
    lengths: Lengths
    skipped: int
    """Malformed lines that were left out."""


@dataclass(slots=True)
class _Complaints:
    """Malformed lines: how many, what is wrong with them in a few words each, and what the first one advises."""

    count: int = 0
    named: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By what is wrong: the first such line, and how many there are."""
    hint: str = ""

    def add(self, number: int, problem: Malformed) -> None:
        self.hint = self.hint if self.count else problem.hint
        self.count += 1
        first, known = self.named.get(str(problem), (number, 0))
        if known or len(self.named) < _NAMED:
            self.named[str(problem)] = first, known + 1

    def _words(self) -> str:
        words = [
            f"line {first}: {what}{f' (and {more:,} more)' if (more := known - 1) else ''}"
            for what, (first, known) in self.named.items()
        ]
        others = self.count - sum(known for _, known in self.named.values())
        return "; ".join([*words, *([f"{others:,} more"] if others else [])])

    def refusal(self, data: Data, good: int) -> UsageError:
        """What to raise, after `good` lines that could be read."""
        if not good:
            lines = f"none of the first {self.count:,} lines is a sample" if self.count > 1 else "no line is a sample"
            return UsageError(
                f"{data.path}: {lines}: {self._words()}",
                hint=self.hint or "name the field that holds a sample with --field, or give another file",
            )
        return UsageError(
            f"{data.path}: {self.count:,} of {self.count + good:,} lines are malformed: {self._words()}",
            hint=f"{self.hint or 'correct them'}, or add --skip-bad to leave them out",
        )


def survey(
    data: Data, *, packer: Packer | None = None, news: Callable[[float, int], None] = lambda share, samples: None
) -> Survey:
    """The lengths of a file's samples; each is handed to `packer`, too, in the file's order.

    `news` is called with the share of the file that is read and the number of samples, now and then. A UsageError names
    malformed lines, unless they are to be skipped, an empty file, and a file that cannot be read.
    """
    counts: Counter[int] = Counter()
    complaints, samples = _Complaints(), 0
    source = Source(data.path)
    for number, length in _lengths(data, source):
        if isinstance(length, Malformed):
            complaints.add(number, length)
            if not samples and complaints.count >= _HOPELESS:
                break
            continue
        samples += 1
        counts[length] += 1
        if packer:
            packer.add(length)
        if samples % 4096 == 0:
            news(source.share, samples)
    if complaints.count and not (data.skip_bad and samples):
        raise complaints.refusal(data, samples)
    if not samples:
        raise UsageError(f"{data.path} holds no samples", hint="give a file with a sample per line")
    return Survey(data.path.name, Lengths.of(counts), complaints.count)


def _lengths(data: Data, source: Source) -> Iterator[tuple[int, int | Malformed]]:
    """Every row's number of tokens, in order; texts are counted many at a time."""
    tokens = Tokens(data.tokenizer) if data.tokenizer else None
    waiting: list[tuple[int, int | Text | Chat | Malformed]] = []
    characters = 0
    for number, row in source.rows(data.field):
        sample = row if isinstance(row, Malformed) else _read(row, data, tokenizes=tokens is not None)
        waiting.append((number, sample))
        characters += _size(sample)
        if tokens is None or len(waiting) >= _TEXTS or characters >= _CHARACTERS:
            yield from _counted(waiting, tokens)
            waiting, characters = [], 0
    yield from _counted(waiting, tokens)


def _read(row: object, data: Data, *, tokenizes: bool) -> int | Text | Chat | Malformed:
    try:
        return read_row(row, field=data.field, tokenizes=tokenizes)
    except Malformed as problem:
        return problem


def _size(sample: int | Text | Chat | Malformed) -> int:
    if isinstance(sample, Text):
        return len(sample.text)
    if isinstance(sample, Chat):
        return sum(len(str(message.get("content"))) for message in sample.messages)
    return 0


def _counted(
    waiting: list[tuple[int, int | Text | Chat | Malformed]], tokens: Tokens | None
) -> Iterator[tuple[int, int | Malformed]]:
    samples = [sample for _, sample in waiting if isinstance(sample, Text | Chat)]
    counted = iter(tokens.count(samples) if tokens and samples else ())
    for number, sample in waiting:
        yield number, next(counted) if isinstance(sample, Text | Chat) else sample
