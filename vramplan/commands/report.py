"""`vramplan report`: many results on one page, in one table, in one file."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from vramplan.commands import Answer, Command
from vramplan.commands.flags import add_json, add_path, json_text, page, writable
from vramplan.files import user_path

if TYPE_CHECKING:
    from vramplan.report.report_facts import Report

EXAMPLES = """\
  vramplan report reports/records --html report.html
  vramplan report reports/records --markdown >> "$GITHUB_STEP_SUMMARY"
  vramplan report a.json b.json --csv results.csv"""


def configure(parser: ArgumentParser) -> None:
    """The arguments."""
    add_path(
        parser,
        "records",
        metavar="RECORDS",
        nargs="+",
        help="records and predictions: files, or directories of them; each record's scenario is predicted beside it",
    )
    files = parser.add_argument_group("files", "each is written whole or not at all")
    add_path(files, "--html", type=writable("--html"), metavar="FILE", help="one page that opens without a network")
    add_path(files, "--csv", type=writable("--csv"), metavar="FILE", help="one row per result, phase and component")
    add_path(files, "--parquet", type=writable("--parquet"), metavar="FILE", help="the same table as Parquet")
    shown = parser.add_mutually_exclusive_group()
    add_json(shown)
    shown.add_argument("--markdown", action="store_true", help="print GitHub-flavoured Markdown")


def run(args: Namespace) -> Answer:
    """Report; never a judgement, `check` does that."""
    from vramplan.api import predict
    from vramplan.report.report_reading import read_report

    report = read_report(
        [user_path(text) for text in args.records],
        lambda scenario, device: predict(scenario, device=device),
        lambda scenario, budget: predict(scenario, budget=budget).verdict,
    )
    written = _write(report, args)
    text = _shown(report, args)
    return Answer(text if args.json or args.markdown or not written else f"{text}\n{written}")


def _write(report: "Report", args: Namespace) -> str:
    """Render every file that is asked for, then write them; the line that says so."""
    from vramplan.report.report_file import write_rendered

    asked = [name for name in _RENDERERS if getattr(args, name) is not None]
    rendered = ((f"--{name}", getattr(args, name), _RENDERERS[name](report)) for name in asked)
    return "\n".join(write_rendered(rendered))


def _html(report: "Report") -> bytes:
    from vramplan.report.html.page import render_page

    return render_page(report).encode()


def _csv(report: "Report") -> bytes:
    from vramplan.report.tables import csv_bytes

    return csv_bytes(report)


def _parquet(report: "Report") -> bytes:
    from vramplan.report.tables import parquet_bytes

    return parquet_bytes(report)


_RENDERERS: "dict[str, Callable[[Report], bytes]]" = {"html": _html, "csv": _csv, "parquet": _parquet}


def _shown(report: "Report", args: Namespace) -> str:
    if args.json:
        return json_text(report.to_json())
    if args.markdown:
        from vramplan.report.report_markdown import report_markdown

        return report_markdown(report)
    from vramplan.report.report_text import render_report

    return render_report(report, page())


COMMAND = Command(
    name="report",
    order=50,
    summary="show many results: a page, Markdown, CSV or Parquet",
    examples=EXAMPLES,
    configure=configure,
    run=run,
)
