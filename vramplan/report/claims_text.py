"""Checked claims as text and as Markdown. Pure: values in, a string out."""

from collections import Counter
from collections.abc import Sequence

from vramplan.claims import Checked, Verdict
from vramplan.report.layout import Page
from vramplan.report.report_words import counted

_WORDS = {
    Verdict.CONFIRMED: "confirmed",
    Verdict.CORRECTED: "corrected",
    Verdict.DEPENDS: "depends",
    Verdict.OPEN: "open",
}

#: The verdict's words, and a gap.
_INDENT = " " * 11


def render_claims(rows: Sequence[Checked], page: Page) -> str:
    """A paragraph per claim, and how many came out which way; the last line is the answer."""
    blocks = [_block(row, page) for row in rows]
    return "\n\n".join([*blocks, summary(rows)])


def _block(row: Checked, page: Page) -> str:
    word = ("not run" if row.problem else _WORDS[row.finding.verdict]).ljust(9)
    first, *more = page.indented(row.claim.said, _INDENT)
    lines = [f"{_painted(word, row, page)}  {page.bold(first.strip())}"]
    lines += [_INDENT + page.bold(line.strip()) for line in more]
    if not row.holds:
        lines.append(f"{_INDENT}{page.red('changed')}: it was {row.claim.verdict}, it is {_found(row)}")
    traced = f"trace: {row.trace.arithmetic}" if row.trace else ""
    details = (row.finding.arithmetic, traced, row.claim.because, row.problem and f"not run here: {row.problem}")
    for text in filter(None, details):
        lines += page.indented(text, _INDENT)
    lines += [f"{_INDENT}$ {command}" for command in row.claim.commands]
    return "\n".join(lines)


def _painted(word: str, row: Checked, page: Page) -> str:
    confirmed = row.finding.verdict is Verdict.CONFIRMED and not row.problem
    return page.green(word) if confirmed else page.bold(word)


def _found(row: Checked) -> str:
    if row.finding.verdict is row.claim.verdict and row.trace:
        return f"{row.trace.verdict} in the trace"
    return row.finding.verdict.value


def summary(rows: Sequence[Checked]) -> str:
    """`27 claims: 13 confirmed, ...; every verdict holds`; a claim that could not be run is no confirmed one."""
    counts = Counter("not run here" if row.problem else _WORDS[row.finding.verdict] for row in rows)
    parts = [f"{counts[word]} {word}" for word in (*_WORDS.values(), "not run here") if counts[word]]
    changed = [row.claim.id for row in rows if not row.holds]
    end = f"changed: {', '.join(changed)}" if changed else "every verdict holds"
    if not changed and counts["not run here"]:
        end = "every other verdict holds" if len(parts) > 1 else "nothing was checked"
    return f"{counted(len(rows), 'claim')}: {', '.join(parts)}; {end}"


def claims_markdown(rows: Sequence[Checked]) -> str:
    """The page: every claim with its verdict, the numbers, and the command that gives them."""
    lines = [
        "# What articles say about QLoRA's memory, checked",
        "",
        "Each claim is worked out again by the commands beside it; `vramplan claims --check` runs them all and fails "
        "when a verdict changes. A rounded number is confirmed within 5 % of the exact one. GB are 10^9 bytes, as in "
        "the articles.",
        "",
        summary(rows) + ".",
        "",
        "| claim | verdict | the numbers | | commands |",
        "|---|---|---|---|---|",
        *map(_line, rows),
    ]
    return "\n".join(lines)


def _line(row: Checked) -> str:
    numbers = [row.finding.arithmetic] + ([f"trace: {row.trace.arithmetic}"] if row.trace else [])
    why = [row.claim.because] + ([f"Measured: {row.claim.measured}"] if row.claim.measured else [])
    commands = [f"`{command}`" for command in row.claim.commands]
    word = (
        f"{_WORDS[row.finding.verdict]} (not run here: {row.problem})" if row.problem else _WORDS[row.finding.verdict]
    )
    cells = [row.claim.said, f"**{word}**", *map(_lines, (numbers, why))]
    return f"| {' | '.join(cells)} | {'<br>'.join(commands)} |"


def _lines(parts: Sequence[str]) -> str:
    return "<br>".join(part.replace("|", "\\|") for part in parts)
