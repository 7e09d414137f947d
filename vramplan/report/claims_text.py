"""Checked claims as text and as Markdown. Pure: values in, a string out."""

from collections import Counter
from collections.abc import Sequence

from vramplan.claims import Checked, Verdict
from vramplan.report.layout import Page

_WORDS = {
    Verdict.CONFIRMED: "confirmed",
    Verdict.CORRECTED: "corrected",
    Verdict.DEPENDS: "depends",
    Verdict.OPEN: "open",
}


def render_claims(rows: Sequence[Checked], page: Page) -> str:
    """A paragraph per claim, and how many came out which way; the last line is the answer."""
    blocks = [_block(row, page) for row in rows]
    return "\n\n".join([*blocks, summary(rows)])


def _block(row: Checked, page: Page) -> str:
    word = _WORDS[row.finding.verdict].ljust(9)
    lines = [f"{_painted(word, row, page)}  {page.bold(row.claim.said)}"]
    if not row.holds:
        lines.append(f"           {page.red('changed')}: it was {row.claim.verdict}, it is {_found(row)}")
    traced = f"trace: {row.trace.arithmetic}" if row.trace else ""
    details = (row.finding.arithmetic, traced, f"{row.claim.because}", row.problem and f"not run here: {row.problem}")
    for text in filter(None, details):
        lines += page.wrap(f"           {text}", indent="           ")
    lines += [f"           $ {command}" for command in row.claim.commands]
    return "\n".join(lines)


def _painted(word: str, row: Checked, page: Page) -> str:
    return page.green(word) if row.finding.verdict is Verdict.CONFIRMED else page.bold(word)


def _found(row: Checked) -> str:
    if row.finding.verdict is row.claim.verdict and row.trace:
        return f"{row.trace.verdict} in the trace"
    return row.finding.verdict.value


def summary(rows: Sequence[Checked]) -> str:
    """`27 claims: 13 confirmed, ...; every verdict holds`."""
    counts = Counter(row.finding.verdict for row in rows)
    parts = ", ".join(f"{counts[verdict]} {_WORDS[verdict]}" for verdict in Verdict if counts[verdict])
    changed = [row.claim.id for row in rows if not row.holds]
    end = f"changed: {', '.join(changed)}" if changed else "every verdict holds"
    return f"{len(rows)} claim{'s' * (len(rows) != 1)}: {parts}; {end}"


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
    cells = [row.claim.said, f"**{_WORDS[row.finding.verdict]}**", *map(_lines, (numbers, why))]
    return f"| {' | '.join(cells)} | {'<br>'.join(commands)} |"


def _lines(parts: Sequence[str]) -> str:
    return "<br>".join(part.replace("|", "\\|") for part in parts)
