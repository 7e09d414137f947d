"""A check as workflow commands: annotations that GitHub shows beside the run. Pure: a value in, a string out.

The rules of escaping are those of actions/toolkit, packages/core/src/command.ts (escapeData, escapeProperty).
"""

from collections.abc import Iterator

from vramplan.check.findings import Case, Check, Status
from vramplan.report.check_words import answer, details, summary

_LEVEL = {
    Status.REGRESSED: "error",
    Status.INCOMPARABLE: "error",
    Status.NEW: "notice",
    Status.IMPROVED: "notice",
}


def check_github(check: Check) -> str:
    """The answer, an error per regression, a notice per improvement and new scenario; the numbers as the last line.

    The answer comes first because GitHub shows ten annotations of a level per step. The last line is no command and
    holds no name, because older workflow commands are looked for in the middle of lines too.
    """
    level = "notice" if check.passed else "error"
    first = _command(level, title="vramplan check", file="", message=answer(check))
    return "\n".join([first, *_cases(check), summary(check)])


def _cases(check: Check) -> Iterator[str]:
    for case in check.cases:
        level = "error" if case in check.failed else _LEVEL.get(case.status)
        if case.status is Status.VANISHED and check.vanished_allowed:
            level = "warning"
        if level:
            title = f"{case.status.value}: {case.key}"
            yield _command(level, title=title, file=_file(case), message="\n".join(details(case)))


def _file(case: Case) -> str:
    """The file that the annotation is shown at: the new result, for a vanished one the baseline's."""
    item = case.new or case.baseline
    return str(item.file) if item and item.file else ""


def _command(level: str, *, title: str, file: str, message: str) -> str:
    properties = [f"{name}={_property(value)}" for name, value in (("file", file), ("title", title)) if value]
    return f"::{level} {','.join(properties)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
