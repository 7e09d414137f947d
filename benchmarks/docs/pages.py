"""A page whose numbers are commands' answers.

- A fenced `console` block is run: what stands below `$ vramplan ...` is what it prints.
- `<!-- facts` opens a list of `name = vramplan ... --json`, one a line: the answers that the page's sentences use.
- `3.25 GiB<!-- = base.at("load", "weights") -->` ties the number before it to the value of an expression over them.
- `<!-- holds: base.peak.phase == "backward" -->` ties a sentence without a number: the expression must be true.
"""

import re
import tempfile
from pathlib import Path

from benchmarks.docs.facts import NUMBER, UNITS, Facts, ask, evaluate, written
from benchmarks.docs.shell import Shell, run_block

PAGES = ("memory.md", "double-quantisation.md", "stacks.md", "ledger.md", "will-it-fit.md", "scenarios.md")
#: What a reader in a checkout has at hand.
SCENARIOS = Path(__file__).parents[2] / "scenarios"

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FACTS = re.compile(r"<!-- facts\n(.*?)-->", re.DOTALL)
_UNIT = "|".join(re.escape(unit) for unit in UNITS if unit)
_TIED = re.compile(rf"({NUMBER}(?: ?(?:{_UNIT}))?)(\**<!-- = (.+?) -->)")
_HOLDS = re.compile(r"<!-- holds: (.+?) -->")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

#: Digits that are part of a name. Everything else with a digit is a number, and must be tied.
_NAMES = re.compile(
    r"\b(?:4|8|16|32)(?:-bit| bits)\b|\b(?:fp|bf)(?:16|32)\b|\bNF4\b|\bRTX \d+\b|\bA6000\b"
    r"|\bLlama \d(?:\.\d)?\b|\b\d+B\b"
)


def renewed(text: str) -> str:
    """The page with every output and tied number as the commands give them now. ValueError where one cannot be."""
    facts = _facts(text)
    for expression in _HOLDS.findall(text):
        if evaluate(expression, facts) is not True:
            raise ValueError(f"no longer true: {expression}")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "scenarios").symlink_to(SCENARIOS)
        shell = Shell(Path(directory))
        return "".join(
            _rerun(part, shell) if part.startswith("```") else _TIED.sub(lambda found: _retied(found, facts), part)
            for part in _parts(text)
        )


def untied(text: str) -> list[str]:
    """Lines of the page that say a number which no command holds."""
    outside = _BLOCK.sub("", text)
    outside = _TIED.sub("", outside)
    outside = _COMMENT.sub("", outside)
    outside = re.sub(r"`[^`\n]*`", "", outside)  # commands and names
    outside = re.sub(r"\]\([^)]*\)", "]", outside)  # where links lead
    return [line for line in outside.splitlines() if re.search(r"\d", _NAMES.sub("", line))]


def blocks_not_run(text: str) -> list[str]:
    """Languages of fenced blocks that are no console."""
    return [language for language, _ in _BLOCK.findall(text) if language != "console"]


def _facts(text: str) -> dict[str, Facts]:
    lines = [line for block in _FACTS.findall(text) for line in block.splitlines() if line.strip()]
    pairs = [line.split(" = ", 1) for line in lines]
    return {name.strip(): ask(command.strip()) for name, command in pairs}


def _parts(text: str) -> list[str]:
    """The text, cut around its fenced blocks."""
    parts, end = [], 0
    for found in _BLOCK.finditer(text):
        parts += [text[end : found.start()], found[0]]
        end = found.end()
    return [*parts, text[end:]]


def _rerun(block: str, shell: Shell) -> str:
    first, *lines, last = block.split("\n")
    return "\n".join([first, *run_block(lines, shell), last])


def _retied(found: re.Match[str], facts: dict[str, Facts]) -> str:
    return written(evaluate(found[3], facts), found[1]) + found[2]
