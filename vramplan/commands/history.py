"""`vramplan history`: how memory moved over versions and dates."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, add_path, json_text, page, writable
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.history import History

EXAMPLES = """\
  vramplan history reports/records
  vramplan history reports/records --over 1% --json
  vramplan history reports/records --html history.html"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(parser, "directory", metavar="DIR", help="directory of records and predictions")
    parser.add_argument(
        "--over",
        metavar="AMOUNT",
        default="0B",
        help="what counts as a move: more than this, in per cent or bytes (default: any byte)",
    )
    add_json(parser)
    files = parser.add_argument_group("plots", "each is written whole or not at all")
    add_path(files, "--html", type=writable("--html"), metavar="FILE", help="one page that opens without a network")
    add_path(files, "--svg", type=writable("--svg"), metavar="FILE", help="one picture of the scenarios that moved")


def run(args: Namespace) -> Answer:
    """Every scenario's series; never a judgement, `check` does that."""
    from vramplan.check.limits import parse_allowance
    from vramplan.history import history
    from vramplan.report.history_text import render_history

    done = history(user_path(args.directory), parse_allowance(args.over, "--over"))
    written = _write(done, args)
    if args.json:
        return Answer(json_text(done.to_json()))
    return Answer("\n".join([render_history(done, page()), *written]))


def _write(done: "History", args: Namespace) -> list[str]:
    """Render every file that is asked for, then write them; the lines that say so."""
    if args.html is None and args.svg is None:
        return []
    from vramplan.report.history_page import render_history_page
    from vramplan.report.history_svg import render_history_svg
    from vramplan.report.report_file import write_rendered

    asked = (("--html", args.html, render_history_page), ("--svg", args.svg, render_history_svg))
    return write_rendered((option, file, render(done).encode()) for option, file, render in asked if file is not None)


COMMAND = Command(
    name="history",
    order=45,
    summary="show how each scenario's memory moved over versions and dates",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
