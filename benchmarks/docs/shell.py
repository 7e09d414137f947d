"""The commands of a page's console blocks, run in this process: `vramplan ...`, what shortens its output, and `cat`."""

import io
import shlex
from collections.abc import Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from vramplan import cli


@dataclass
class Shell:
    """One reader at a prompt: files that a command writes are there for the next one."""

    directory: Path
    status: int = 0
    """Exit code of the last command."""

    def run(self, line: str) -> str:
        """What a terminal shows for `line`, less its last line break. ValueError for what only a real shell does."""
        first, *filters = _split(line)
        program, *arguments = first
        if first == ["echo", "$?"]:
            return str(self.status)
        if program not in ("vramplan", "cat"):
            raise ValueError(f"a page shows vramplan's commands, and cat, not: {line}")
        silent = arguments[-2:] == [">", "/dev/null"]
        talk, shown = (self._vramplan if program == "vramplan" else self._cat)(arguments[: -2 if silent else None])
        for words in filters:
            shown, self.status = _filtered(shown, words), 0
        return "\n".join(talk if silent else [*talk, *shown])

    def _cat(self, names: list[str]) -> tuple[list[str], list[str]]:
        self.status = 0
        return [], [line for name in names for line in (self.directory / name).read_text(encoding="utf-8").splitlines()]

    def _vramplan(self, arguments: list[str]) -> tuple[list[str], list[str]]:
        """Lines of stderr, which no pipe takes, and of stdout."""
        out, err = io.StringIO(), io.StringIO()
        with chdir(self.directory), redirect_stdout(out), redirect_stderr(err):
            self.status = cli.main(arguments)
        return err.getvalue().splitlines(), out.getvalue().splitlines()


def _split(line: str) -> list[list[str]]:
    """The words of each command of a pipe."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(line):
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def _filtered(lines: list[str], words: list[str]) -> list[str]:
    """The lines that `head -n N`, `tail -n N` or `grep TEXT` lets through."""
    match words:
        case ["head", "-n", count]:
            return lines[: int(count)]
        case ["tail", "-n", count]:
            return lines[-int(count) :]
        case ["grep", text] if text.replace(" ", "").replace("-", "").isalnum():  # nothing that grep reads as a pattern
            return [line for line in lines if text in line]
    raise ValueError(f"not a filter that the pages use: {shlex.join(words)}")


def run_block(lines: Iterable[str], shell: Shell) -> list[str]:
    """The lines of a console block as they must be: each command, and below it what it shows."""
    made: list[str] = []
    for line in lines:
        if line.startswith("$ "):
            made += [line, *shell.run(line[2:]).splitlines()]
    return made
