"""The command line: parse, call, show, exit code. The only place that prints the answer and that exits."""

import argparse
import codecs
import gc
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import vramplan
from vramplan.commands import Answer, Command, all_commands, commands_for
from vramplan.commands.one_value import OneValue
from vramplan.errors import CannotRun, UsageError, VramplanError, may_not_read, nearest

EPILOG = """\
exit codes: 0 the answer is yes, 1 the answer is no (does not fit, out of memory measured), 2 asked wrongly,
3 cannot run here, 4 a bug in vramplan, 130 interrupted

example:
  vramplan predict llama-2-7b --gpu rtx3090 --batch 4 --seq 512
"""
_BUG = 4
_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are our errors: one line what, one line hint, exit code 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register("action", None, OneValue)
        # Values that begin with a dash: `-5GiB` too, so that its option refuses it in its own words.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '?([^' ]*)'?", message)
        if choice:
            known = [command.name for command in all_commands()]
            hint = f"{nearest(choice[1], known)}commands: {', '.join(known)}"
            raise UsageError(f"unknown command '{choice[1]}'", hint=hint)
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def build_parser(commands: Iterable[Command]) -> argparse.ArgumentParser:
    """The parser of some commands."""
    parser = _Parser(
        prog="vramplan",
        description="Will this fine-tuning run fit on this GPU? Predict, measure and compare its memory.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vramplan {vramplan.__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in commands:
        sub = parsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"examples:\n{command.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.configure(sub)
        options = [option for action in sub._actions for option in action.option_strings]
        sub.set_defaults(run=command.run, options=options)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; its exit code."""
    return exit_code(lambda: _show(answer(sys.argv[1:] if argv is None else list(argv))))


def exit_code(work: Callable[[], int]) -> int:
    """The exit code that `work` comes to; what it raises is told on stderr and has one of its own."""
    try:
        return work()
    except VramplanError as error:
        _complain(error)
        return error.exit_code
    except PermissionError as error:  # pathlib asks whether something exists, and may not know
        refused = may_not_read(error)
        _complain(refused)
        return refused.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except SystemExit as exit_:  # argparse leaves this way after --help and --version
        return exit_.code if isinstance(exit_.code, int) else 0
    except Exception:
        import traceback

        traceback.print_exc()
        print("error: this is a bug in vramplan: please report the lines above", file=sys.stderr)
        return _BUG


#: A replay makes objects by the hundred thousand that refer to nothing but numbers: looking among them for cycles every
#: 700 (Python's default) takes a tenth of a `plan`.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def run() -> NoReturn:
    """The entry point of the `vramplan` script."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="vramplan")
    sys.exit(main())


#: What a terminal without Unicode shows for the characters of bars, sparklines and tables.
_PLAIN = str.maketrans("█▉▊▋▌▍▎▏▇▆▅▄▃▂▁\u00d7·→…", "#####   ==---__x.>~")


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: a bar of `#`, and `?` for a character that has no stand-in."""
    assert isinstance(error, UnicodeEncodeError)
    shown = error.object[error.start : error.end].translate(_PLAIN)
    return shown.encode("ascii", "replace").decode(), error.end


codecs.register_error("vramplan", _in_plain_characters)


def answer(argv: list[str]) -> Answer:
    """What a command line answers, nothing printed; a VramplanError where it has none."""
    args, unread = build_parser(commands_for(argv[0] if argv else "")).parse_known_args(argv)
    if unread:
        hint = nearest(unread[0].partition("=")[0], args.options) if unread[0].startswith("-") else ""
        raise UsageError(f"unknown argument '{unread[0]}'", hint=f"{hint}see `vramplan {args.command} --help`")
    found: Answer = args.run(args)
    return found


def _show(answer: Answer) -> int:
    """Print the answer; a reader that stops early (`| head`) changes neither the exit code nor says a word."""
    if sys.stdout is None:  # closed by the caller: only the exit code is wanted
        return answer.code
    try:
        if answer.text:
            print(answer.text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at exit
        if not isinstance(error, BrokenPipeError):
            raise CannotRun(
                f"cannot write the answer: {error.strerror}", hint="make room, or print elsewhere"
            ) from error
    return answer.code


def _complain(error: VramplanError) -> None:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint:  {error.hint}", file=sys.stderr)
