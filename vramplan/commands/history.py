"""`vramplan history`: how memory moved over versions and dates."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, json_text, page

EXAMPLES = """\
  vramplan history reports/records
  vramplan history reports/records --over 1% --json"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("directory", metavar="DIR", help="directory of records and predictions")
    parser.add_argument(
        "--over",
        metavar="AMOUNT",
        default="0B",
        help="what counts as a move: more than this, in per cent or bytes (default: any byte)",
    )
    add_json(parser)


def run(args: Namespace) -> Answer:
    """Every scenario's series; never a judgement, `check` does that."""
    from vramplan.check.limits import parse_allowance
    from vramplan.history import history
    from vramplan.report.history_text import render_history

    done = history(Path(args.directory).expanduser(), parse_allowance(args.over, "--over"))
    return Answer(json_text(done.to_json()) if args.json else render_history(done, page()))


COMMAND = Command(
    name="history",
    order=45,
    summary="show how each scenario's memory moved over versions and dates",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
